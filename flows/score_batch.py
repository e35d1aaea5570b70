"""Score a window's examples with features as of each one's own moment, through serving's own scoring and log."""

from datetime import datetime

from prefect import flow

from evergreen.types import Window
from evergreen.wiring import wiring
from tasks.features import refresh_features
from tasks.scoring import score_window


@flow(flow_run_name="score-{model}")
def score_batch(start: datetime, end: datetime, model: str = "flight_delay") -> int:
    """Answer every example of `[start, end)` that has no answer yet; returns how many were answered.

    Args:
        start: First event time, inclusive.
        end: Last event time, exclusive; also the moment whose knowledge may be used.
        model: Name of a file in `models/`.
    """
    spec, window = wiring().spec(model), Window(start=start, end=end)
    refresh_features(spec, window.end)
    return score_window(spec, window)
