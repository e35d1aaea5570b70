"""Evidently: current inputs beside those the champion was trained on, as figures and as one HTML page.

It measures and draws; the verdict that counts is `evergreen.monitoring.drift`'s,
shown beside Evidently's own, and whether drift starts anything is the policy's to say. Our own part: a changed missing
share, which Evidently's methods cannot see because they drop missing values first, and a threshold that leaves room for
what two samples of one distribution differ by anyway.
Called by the watch task with at most `[monitor].report_rows` rows a side. Importing Evidently costs seconds, so it is
imported inside the functions: a process that never draws a report never pays. To measure another kind
of column, add its method to `METHODS`; to add a part to the page, add a widget to the list that `drift_report` writes.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from evergreen.adapters.evidently.library import evidently as library
from evergreen.adapters.evidently.quality import quality as quality_widgets
from evergreen.adapters.evidently.workspace import EvidentlyWorkspace
from evergreen.errors import DataError
from evergreen.types import DriftReport, DriftVerdict, FeatureDrift, FeatureShift, Task, Window

Kind = Literal["numeric", "categorical"]
METHODS: dict[Kind, str] = {"numeric": "wasserstein", "categorical": "jensenshannon"}
"""Distances, not p-values: they mean the same at any number of rows. Wasserstein is in reference deviations."""
MAX_DISTANCE = 0.1
MIN_DEVIATION = 0.001
"""Evidently's floor for the deviation it divides a Wasserstein distance by."""
MAX_MISSING_CHANGE = 0.1
"""Drifted when the missing share moved by more than this."""


@dataclass(frozen=True)
class _Column:
    """One feature on both sides: missing shares, and the distance with its widgets where there is one."""

    kind: Kind
    missing: tuple[float, float]
    threshold: float
    distance: float | None = None
    widgets: tuple[Any, ...] = ()


def drift_report(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    inputs: Mapping[str, Kind],
    *,
    model: str,
    window: Window,
    reference_window: Window,
    html: Path,
    score: str | None = None,
    label: str | None = None,
    task: Task = "binary",
    verdict: DriftVerdict | None = None,
    workspace: EvidentlyWorkspace | None = None,
) -> DriftReport:
    """Compare `current` with `reference` column by column and write the page to `html`.

    Both frames hold a row an example and at least the columns of `inputs`; draw them down first, the cost grows with
    the rows. With `score` and `label`, names of columns, the page also shows the quality of the labelled rows of
    `current`, beside that of `reference` if it carries both columns too; the answers of a multiclass model are read from
    `probabilities`. A feature has one row in the report: the
    distance of its values or the change of its missing share, whichever is further over its threshold; a column with no
    value on one side has only the latter. A calibrated `verdict` is drawn beside it and travels in the report.
    What Evidently measured is also kept in `workspace`, for its own UI (`workspace.py`).
    Raises `DataError` when a side is empty or lacks columns.
    """
    for side, frame in (("reference", reference), ("current", current)):
        _require(frame, inputs, side)
    before, now = _clean(reference, inputs), _clean(current, inputs)
    columns, counted, measured = _measure(before, now, inputs, window)
    features = tuple(_worse(name, column) for name, column in columns.items())
    quality = quality_widgets(reference, current, score, label, task) if score and label else []
    title = f"{model} in {window}, beside {reference_window}"
    if verdict is not None:
        title += (
            f"; by days {verdict.share:.0%} of the features drifted, chance that none did {verdict.p_value:.4f} "
            f"({verdict.permutations:,} exchanges of {verdict.block_days}-day blocks, seed {verdict.seed})"
        )
    if workspace is not None and measured is not None:
        workspace.keep(measured, model=model, window=window, verdict=verdict)
    _write(html, [*counted, _table(features, columns, verdict, title=title), *quality])
    return DriftReport(
        model=model,
        window=window,
        reference=reference_window,
        rows=len(current),
        reference_rows=len(reference),
        features=features,
        uri=str(html),
        verdict=verdict,
    )


def default_share(reference: pd.DataFrame, current: pd.DataFrame, inputs: Mapping[str, Kind]) -> float:
    """Share of the columns that Evidently's DataDriftPreset says drifted, by its own defaults; it alarms from 0.5 on."""
    evidently = library()
    from evidently.presets import DataDriftPreset

    sides = [_clean(side, inputs) for side in (current, reference)]
    kept = [name for name in inputs if all(side[name].notna().any() for side in sides)]
    definition = evidently.DataDefinition(
        numerical_columns=[name for name in kept if inputs[name] == "numeric"],
        categorical_columns=[name for name in kept if inputs[name] == "categorical"],
    )
    data = [evidently.Dataset.from_pandas(side[kept], definition) for side in sides]
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = evidently.Report([DataDriftPreset()]).run(*data).dict()["metrics"][0]["value"]
    return float(found["share"])


def _require(frame: pd.DataFrame, inputs: Mapping[str, Kind], side: str) -> None:
    if frame.empty:
        raise DataError(f"the {side} side of the drift report has no rows; choose a window that has some")
    missing = [name for name in inputs if name not in frame.columns]
    if missing:
        raise DataError(
            f"the {side} side of the drift report lacks the features {missing}; "
            "compare rows of one version with the training set of that version"
        )


def _clean(frame: pd.DataFrame, inputs: Mapping[str, Kind]) -> pd.DataFrame:
    """The input columns as floats and strings, everything that is not a value missing."""
    cleaned = {}
    for name, kind in inputs.items():
        if kind == "numeric":
            # What is no number counts as missing: a column that turned to text shows up there and does not crash.
            values = pd.to_numeric(frame[name], errors="coerce").astype(float)
            cleaned[name] = values.where(np.isfinite(values))
        else:
            cleaned[name] = frame[name].where(frame[name].isna(), frame[name].astype(str)).astype(object)
    return pd.DataFrame(cleaned, index=frame.index)


def _measure(
    reference: pd.DataFrame, current: pd.DataFrame, inputs: Mapping[str, Kind], window: Window
) -> tuple[dict[str, _Column], list[Any], Any]:
    """Every feature measured, the widgets of Evidently's own verdict over all of them, and Evidently's snapshot."""
    missing = {name: (float(reference[name].isna().mean()), float(current[name].isna().mean())) for name in inputs}
    columns = {
        name: _Column(kind, missing[name], _threshold(reference[name], current[name], kind))
        for name, kind in inputs.items()
    }
    # Evidently raises on a column without any value.
    measured = {name: column for name, column in columns.items() if max(column.missing) < 1.0}
    if not measured:
        return columns, [], None
    evidently = library()
    drifts = {
        name: evidently.metrics.ValueDrift(column=name, method=METHODS[column.kind], threshold=column.threshold)
        for name, column in measured.items()
    }
    verdict = evidently.metrics.DriftedColumnsCount(
        columns=list(measured),
        num_method=METHODS["numeric"],
        cat_method=METHODS["categorical"],
        per_column_threshold={name: column.threshold for name, column in measured.items()},
    )
    definition = evidently.DataDefinition(
        numerical_columns=[name for name, column in measured.items() if column.kind == "numeric"],
        categorical_columns=[name for name, column in measured.items() if column.kind == "categorical"],
    )
    sides = [evidently.Dataset.from_pandas(side[list(measured)], definition) for side in (current, reference)]
    with np.errstate(divide="ignore", invalid="ignore"):  # it also correlates, and constant columns divide by zero
        snapshot = evidently.Report([verdict, *drifts.values()]).run(*sides, timestamp=window.end)
    results = snapshot.metric_results
    for name, drift in drifts.items():
        found, column = results[drift.metric_id], columns[name]
        columns[name] = _Column(
            column.kind, column.missing, column.threshold, float(found.value), tuple(found.get_widgets())
        )
    return columns, results[verdict.metric_id].get_widgets(), snapshot


def _threshold(reference: pd.Series, current: pd.Series, kind: Kind) -> float:
    """`MAX_DISTANCE` and room for the distance that sampling alone makes between n and m rows of one distribution.

    Categories: the expected Jensen-Shannon divergence over k of them is about (k - 1) / 8 * (1/n + 1/m) nats (to second
    order it is an eighth of a chi-square), and divergences add: with a hundred categories and 2,000 rows a side the
    distance is above 0.1 though nothing drifted. Numbers: the expected Wasserstein distance is about
    sqrt(2/pi * (1/n + 1/m)) times the integral of sqrt(F (1 - F)) (Bobkov and Ledoux 2019), and it is a metric, so the
    two add.
    """
    before, now = reference.dropna(), current.dropna()
    if before.empty or now.empty:
        return MAX_DISTANCE
    spread = 1 / len(before) + 1 / len(now)
    if kind == "categorical":
        categories = len(set(before) | set(now))
        return float(np.sqrt(MAX_DISTANCE**2 + (categories - 1) / 8 * spread))
    values = np.sort(before.to_numpy(dtype=float))
    below = np.arange(1, len(values)) / len(values)
    integral = float(np.sum(np.sqrt(below * (1 - below)) * np.diff(values)))
    return MAX_DISTANCE + float(np.sqrt(2 / np.pi * spread)) * integral / max(float(values.std()), MIN_DEVIATION)


def _worse(name: str, column: _Column) -> FeatureDrift:
    change = abs(column.missing[1] - column.missing[0])
    if column.distance is None or change / MAX_MISSING_CHANGE > max(column.distance / column.threshold, 1.0):
        method, figure, threshold = "missing share", change, MAX_MISSING_CHANGE
    else:
        method, figure, threshold = METHODS[column.kind], column.distance, column.threshold
    return FeatureDrift(feature=name, method=method, score=figure, threshold=threshold, drifted=figure > threshold)


def _table(
    features: Sequence[FeatureDrift], columns: Mapping[str, _Column], verdict: DriftVerdict | None, title: str
) -> Any:
    """A row a feature, furthest over its threshold first, its distributions behind a click."""
    library()
    from evidently.legacy.renderers.html_widgets import (
        ColumnDefinition,
        RichTableDataRow,
        RowDetails,
        rich_table_data,
    )

    by_days = {shift.feature: shift for shift in verdict.features} if verdict is not None else {}
    rows = []
    for feature in sorted(features, key=lambda f: f.score / f.threshold, reverse=True):
        column, details = columns[feature.feature], RowDetails()
        for drawing in column.widgets[-1:]:  # those before it repeat the row in words
            details.with_part("distribution", drawing)
        cells = {
            "feature": feature.feature,
            "kind": column.kind,
            "method": feature.method,
            "score": f"{feature.score:.3f}",
            "threshold": f"{feature.threshold:.3f}",
            "drifted": "drifted" if feature.drifted else "",
            **_by_days(by_days.get(feature.feature)),
            "missing_before": f"{column.missing[0]:.1%}",
            "missing_now": f"{column.missing[1]:.1%}",
        }
        rows.append(RichTableDataRow(details=details, fields=cells))
    heads = (
        "Feature", "Kind", "Measure", "Score", "Threshold", "Evidently", "Distance by days", "Usual", "Chance", "By days",
        "Missing before", "Missing now",
    )  # fmt: skip
    shown = [ColumnDefinition(head, name) for head, name in zip(heads, cells, strict=True)]
    return rich_table_data(title=title, columns=shown, data=rows, rows_per_page=50)


def _by_days(shift: FeatureShift | None) -> dict[str, str]:
    """What the calibrated verdict says of a feature; empty cells where there is none."""
    if shift is None:
        return dict.fromkeys(("distance", "usual", "chance", "by_days"), "")
    return {
        "distance": f"{shift.distance:.3f}",
        "usual": f"{shift.usual_distance:.3f}",
        "chance": f"{shift.adjusted_p_value:.4f}",
        "by_days": "drifted" if shift.drifted else "",
    }


def _write(html: Path, widgets: list[Any]) -> None:
    from evidently.core.metric_types import render_widgets

    html.parent.mkdir(parents=True, exist_ok=True)
    partial = html.with_name(html.name + ".partial")
    partial.write_text(render_widgets(widgets), encoding="utf-8")
    partial.replace(html)  # a killed check leaves no half page under the final name
