"""What a version said in a window beside what came true.

Pure over a frame of `PredictionLog.frame`: no clock, no storage. Figures come from `evergreen.evaluation`, as at the
gate. Figures of a window wait until enough of its outcomes are in: those that are known early are not a fair sample of
all (a flight that leaves on time lands first).
Called by the watch flow. To report another figure, add it to `evergreen.evaluation.score_rows`.
"""

import numpy as np
import pandas as pd

from evergreen.evaluation import calibration_gap, score_rows
from evergreen.monitoring.recalibration import probe
from evergreen.monitoring.shadow import said_by
from evergreen.monitoring.windows import in_window, require_columns
from evergreen.spec import MonitorConfig
from evergreen.types import LiveFigures, PerformanceReport, Scores, Task, Window

NEEDED = ("event_timestamp", "version", "score", "label")


def performance(
    frame: pd.DataFrame,
    *,
    model: str,
    version: int,
    window: Window,
    config: MonitorConfig,
    task: Task = "binary",
    earlier: pd.DataFrame | None = None,
) -> PerformanceReport:
    """Score what `version` answered in `window`.

    `frame` holds one row a prediction with `event_timestamp`, `version`, `score` (of a multiclass model also `probabilities`)
    and `label` (NaN while unknown); rows of other versions and outside the window are left out. `scores` and
    `calibration_gap` are None while fewer than `min_labels` outcomes, or less than `min_label_share` of them, are in; a
    window in which the version answered nothing is a report with zero rows. `days` counts the UTC days with an outcome.
    `earlier`, rows like `frame`'s from before the window with the outcomes known when it starts, is what the probe of a
    binary model learns from. Raises `DataError` naming missing columns.
    """
    require_columns(frame, NEEDED)
    served = in_window(frame, window)
    served = served[served["version"] == version]
    labelled = served[served["label"].notna()]
    report = PerformanceReport(
        model=model,
        version=version,
        window=window,
        served=len(served),
        labelled=len(labelled),
        scores=None,
        days=labelled["event_timestamp"].dt.floor("D").nunique(),
    )
    if waits_for_labels(report, config) is not None:
        return report
    scores = _score(labelled, task)
    tried = None
    if earlier is not None and task == "binary":
        tried = probe(earlier[earlier["version"] == version], labelled, config)
    return report.model_copy(update={"scores": scores, "calibration_gap": calibration_gap(scores)[0], "probe": tried})


def waits_for_labels(report: PerformanceReport, config: MonitorConfig) -> str | None:
    """Why labelled figures must wait, in words; None when they need not."""
    if not report.served:
        return f"version {report.version} answered nothing in {report.window}"
    if report.label_share < config.min_label_share:
        return (
            f"{report.labelled:,} of {report.served:,} answers have outcomes, "
            f"[monitor].min_label_share asks for {config.min_label_share:.0%}"
        )
    if report.labelled < config.min_labels:
        return f"{report.labelled:,} outcomes are in, [monitor].min_labels asks for {config.min_labels:,}"
    return None


def live_figures(frame: pd.DataFrame, version: int, task: Task = "binary") -> LiveFigures:
    """Counts, figures and latency of `version` over `frame`: as `performance` takes it, with what was said beside.

    Figures are over the outcomes that are in, so they favour what is known early; they are None below two outcomes.
    """
    asked = said_by(frame, version)
    served = asked[asked["score"].notna()]
    labelled = served[served["label"].notna()]
    if task == "multiclass":  # answers of before that was logged have none beside
        labelled = labelled[labelled["probabilities"].notna()]
    return LiveFigures(
        version=version,
        rows=len(asked),
        failed=len(asked) - len(served),
        labelled=len(labelled),
        scores=_score(labelled, task) if len(labelled) > 1 else None,
        p99_latency_ms=float(served["latency_ms"].quantile(0.99)) if len(served) else 0.0,
    )


def _score(labelled: pd.DataFrame, task: Task) -> Scores:
    """Of one version's answers, so that each has the same classes."""
    if task == "multiclass":
        scores = np.array([list(by_class.values()) for by_class in labelled["probabilities"]], dtype=float)
    else:
        scores = labelled["score"].to_numpy(dtype=float)
    return score_rows(labelled["label"].to_numpy(dtype=float), scores, task)
