"""Look for better values of a spec's `[train]`, and write them down as a spec a person can compare with the present one.

Nothing changes by itself: the file lies beside the reports, and who likes it copies it over `models/NAME.toml`. Killed
and run again it goes on in the same study, with the trial that was cut off.
"""

from datetime import datetime

from prefect import flow

from evergreen.types import Tuning
from evergreen.wiring import wiring
from tasks.features import refresh_features
from tasks.tune import build_tuning_set, day_of, search, write_tuned_spec


@flow(flow_run_name="tune-{model}")
def tune(model: str = "flight_delay", as_of: datetime | None = None) -> Tuning:
    """Search for better values of `[train]` with what was known at `as_of`; `[tune]` says where and how long.

    Args:
        model: Name of a file in `models/`.
        as_of: The moment whose knowledge may be used; empty means the start of today. The same moment goes on in its study.
    """
    spec = wiring().spec(model)
    at = day_of(as_of)
    refresh_features(spec, at)
    training_set = build_tuning_set(spec, at)
    study = search(spec, training_set)
    return write_tuned_spec(spec, study)
