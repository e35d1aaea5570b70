"""Has the model rotted? What happens on drift starts here.

Scheduled. Reads the prediction log, never the training data's future: the newest window whose labels are in. When the
policy says so it emits `evergreen.drift.detected`, which `prefect.yaml` turns into a run of `retrain`.
"""

from datetime import datetime

from prefect import flow

from evergreen.types import RetrainDecision
from evergreen.wiring import wiring
from tasks.challenger import challenge
from tasks.estimate import estimate_newest
from tasks.features import refresh_features
from tasks.moment import moment
from tasks.monitoring import show_monitoring
from tasks.watch import (
    announce,
    compare_inputs,
    decide_retrain,
    look_for_faults,
    measure_performance,
    record_outcomes,
    served_rows,
)


@flow(flow_run_name="watch-{model}")
def watch(model: str = "flight_delay", as_of: datetime | None = None) -> RetrainDecision | None:
    """Compare what was served with what came true and with what the champion was trained on, and decide.

    Args:
        model: Name of a file in `models/`.
        as_of: The moment whose knowledge may be used; empty means now.
    """
    spec = wiring().spec(model)
    at = moment(as_of)
    refresh_features(spec, at)
    record_outcomes(spec, at)
    estimate_newest(spec, at)
    served = served_rows(spec, at)
    if served is None:
        show_monitoring(spec, at)
        return None
    faults = look_for_faults(spec, served)
    drift = compare_inputs(spec, served)
    performance = measure_performance(spec, served)
    challenger = challenge(spec, served, faults)
    decision = decide_retrain(spec, served, performance, drift, faults, challenger)
    if decision.retrain:
        announce(spec, decision)
    show_monitoring(spec, at)
    return decision
