"""One look at what was served: inputs, outcomes, verdict, event."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.events import emit_event

from evergreen.monitoring.performance import performance
from evergreen.monitoring.policy import decide
from evergreen.monitoring.windows import mature_window, sample_days
from evergreen.spec import ModelSpec
from evergreen.types import DriftReport, ModelVersion, PerformanceReport, RetrainDecision, Window
from evergreen.wiring import wiring

EVENT = "evergreen.drift.detected"


@dataclass(frozen=True)
class Served:
    """What the champion answered in one window; stays inside the flow's process."""

    champion: ModelVersion
    window: Window
    frame: pd.DataFrame
    as_of: datetime


@task(retries=2, retry_delay_seconds=5)
def record_outcomes(spec: ModelSpec, as_of: datetime) -> None:
    """Bring the outcomes that became known since the last time into the prediction log."""
    from evergreen.adapters.feature_tables import read_outcomes

    wire = wiring()
    with wire.records() as records:
        since = records.predictions.newest_outcome(spec.name) or spec.training_window(as_of).start
        outcomes = read_outcomes(wire.settings.data, spec, Window(start=since, end=as_of))
        counts = records.predictions.record_outcomes(spec.name, outcomes)
    get_run_logger().info("outcomes: %s", counts)
