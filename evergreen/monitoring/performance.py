"""What a version said in a window beside what came true: whole, day by day, and slice by slice.

Pure over a frame of `PredictionLog.frame`: no clock, no storage. Figures come from `evergreen.evaluation`, as at the
gate, their intervals from `intervals.py`. Figures of a window wait until enough of its outcomes are in: those that are
known early are not a fair sample of all (a flight that leaves on time lands first); what can be said before is in
`estimate.py` and `censoring.py`.
Called by the watch flow. To report another figure, add it to `evergreen.evaluation.score_rows`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from evergreen.evaluation import MISSING, calibration_gap, score_rows
from evergreen.figures import row_losses
from evergreen.monitoring.estimate import estimate_performance, scores_of, truth_and_scores
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.monitoring.recalibration import probe
from evergreen.monitoring.shadow import said_by
from evergreen.monitoring.windows import in_window, require_columns, sample_by_day
from evergreen.spec import MonitorConfig
from evergreen.types import (
    DayPerformance,
    LiveFigures,
    PerformanceReport,
    Scores,
    SlicePerformance,
    Task,
    Window,
)

NEEDED = ("event_timestamp", "version", "score", "label")
MIN_SLICE_ROWS = 100
"""Outcomes below which a slice says too little to be shown."""
MOST_SLICES = 50
"""Of one column, the largest."""


def performance(
    frame: pd.DataFrame,
    *,
    model: str,
    version: int,
    window: Window,
    config: MonitorConfig,
    task: Task = "binary",
    earlier: pd.DataFrame | None = None,
    slices: Sequence[str] = (),
    seed: int = 0,
) -> PerformanceReport:
    """Score what `version` answered in `window`.

    `frame` holds one row a prediction with `event_timestamp`, `version`, `score` (of a multiclass model also `probabilities`)
    and `label` (NaN while unknown); rows of other versions and outside the window are left out. Labelled figures are None
    while fewer than `min_labels` outcomes, or less than `min_label_share` of them, are in; a window in which the version
    answered nothing is a report with zero rows. `days` counts the UTC days with an outcome. `earlier`, rows like `frame`'s
    from before the window with the outcomes known when it starts, is what the probe of a binary model learns from and the
    estimate is calibrated on. `slices` are columns of `frame`; one it lacks is left out. `seed` draws the days of the
    intervals, and where there are more than `[monitor].figure_rows` answers the rows of each day that are figured (those
    alone need `example_id`); the counts are always of all. Raises `DataError` naming missing columns.
    """
    require_columns(frame, NEEDED)
    served = in_window(frame, window)
    served = served[served["version"] == version]
    known = served["label"].notna()
    counts = {"served": len(served), "labelled": int(known.sum())}
    days = served["event_timestamp"][known].dt.floor("D").nunique()
    served = sample_by_day(served, config.figure_rows, seed=seed)
    before = None if earlier is None else earlier[earlier["version"] == version]
    if before is not None:
        before = sample_by_day(before, config.figure_rows, seed=seed)
    labelled = served[served["label"].notna()]
    report = PerformanceReport(
        model=model,
        version=version,
        window=window,
        **counts,
        figured=len(labelled),
        seed=seed,
        scores=None,
        days=days,
        estimate=None if before is None else estimate_performance(before, served, task=task, config=config, seed=seed),
    )
    if waits_for_labels(report, config) is not None:
        return report
    scores = _score(labelled, task)
    place = blocks(labelled["event_timestamp"], config.block_days)
    return report.model_copy(
        update={
            "scores": scores,
            "calibration_gap": calibration_gap(scores)[0],
            "probe": probe(before, labelled, config) if before is not None and task == "binary" else None,
            "intervals": figures_by_days(task, *truth_and_scores(labelled, task), place, seed=seed),
            "by_day": _by_day(labelled, task, scores),
            "slices": tuple(part for name in slices for part in _slices(labelled, name, task, config, seed)),
        }
    )


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


def _by_day(labelled: pd.DataFrame, task: Task, whole: Scores) -> tuple[DayPerformance, ...]:
    """Loss and calibration gap of each UTC day; the gap of the window's class, and in its deviations."""
    truth, scores = truth_and_scores(labelled, task)
    losses = row_losses(task, labelled["label"].to_numpy(dtype=float), scores)
    gaps = scores - truth
    if task == "regression":
        gaps = gaps / (whole["label_std"] or 1.0)
    elif task == "multiclass":
        gaps = gaps[:, int(np.abs(gaps.sum(axis=0)).argmax())]
    days, place = np.unique(labelled["event_timestamp"].to_numpy(dtype="datetime64[D]"), return_inverse=True)
    rows = np.bincount(place)
    means = (np.bincount(place, weights=values) / rows for values in (losses, gaps))
    return tuple(
        DayPerformance(day=day, rows=int(count), loss=float(loss), calibration_gap=float(gap))
        for day, count, loss, gap in zip(days.tolist(), rows, *means, strict=True)
    )


def _slices(
    labelled: pd.DataFrame, column: str, task: Task, config: MonitorConfig, seed: int
) -> list[SlicePerformance]:
    """Every value of a column with rows enough, the largest first."""
    if column not in labelled.columns:
        return []
    values = labelled[column].where(labelled[column].notna(), MISSING).astype(str)
    counts = values.value_counts()
    found = []
    for value, count in counts[counts >= MIN_SLICE_ROWS].head(MOST_SLICES).items():
        part = labelled[values == value]
        place = blocks(part["event_timestamp"], config.block_days)
        figures = figures_by_days(task, *truth_and_scores(part, task), place, seed=seed)
        found.append(SlicePerformance(name=f"{column}={value}", rows=int(count), figures=figures))
    return found


def _score(labelled: pd.DataFrame, task: Task) -> Scores:
    """Of one version's answers, so that each has the same classes."""
    return score_rows(labelled["label"].to_numpy(dtype=float), scores_of(labelled, task), task)
