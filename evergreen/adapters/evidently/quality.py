"""Evidently's view of how right the answers were: widgets for the page of `reports.py`.

Called by `reports.py`. To show another figure of a task, add Evidently's metric to its list.
"""

import warnings
from typing import Any

import pandas as pd

from evergreen.adapters.evidently.library import evidently as library
from evergreen.types import Task


def quality(reference: pd.DataFrame, current: pd.DataFrame, score: str, label: str, task: Task) -> list[Any]:
    """Widgets of the quality over rows with an outcome; none where too few different outcomes are there to judge by."""
    scored = _classified if task == "multiclass" else _scored
    now, before = (scored(side, score, label) for side in (current, reference))
    if now is None:
        return []
    evidently = library()
    measures = evidently.metrics
    if task == "regression":
        definition = evidently.DataDefinition(regression=[evidently.Regression(target="label", prediction="score")])
        metrics = [measures.MeanError(), measures.MAE(), measures.RMSE(), measures.R2Score()]
    elif task == "multiclass":
        classes = [name for name in now.columns if name != "label"]
        kind = evidently.MulticlassClassification(target="label", prediction_probas=classes)
        definition = evidently.DataDefinition(classification=[kind])
        metrics = [measures.Accuracy(), measures.LogLoss()]
    else:
        kind = evidently.BinaryClassification(target="label", prediction_probas="score", pos_label=1)
        definition = evidently.DataDefinition(classification=[kind])
        metrics = [measures.RocAuc(), measures.LogLoss()]
    sides = (None if side is None else evidently.Dataset.from_pandas(side, definition) for side in (now, before))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it also computes what few rows leave undefined, and does not show it
        results = evidently.Report(metrics).run(*sides).metric_results
    return [widget for metric in metrics for widget in results[metric.metric_id].get_widgets()]


def _scored(frame: pd.DataFrame, score: str, label: str) -> pd.DataFrame | None:
    """Score and label of the rows that have both; None unless there are two different outcomes."""
    if score not in frame.columns or label not in frame.columns:
        return None
    rows = pd.DataFrame({"score": frame[score], "label": frame[label]}).dropna().astype(float)
    if rows["label"].nunique() < 2:
        return None
    whole = bool((rows["label"] == rows["label"].round()).all())
    return rows.astype({"label": int}) if whole else rows


def _classified(frame: pd.DataFrame, score: str, label: str) -> pd.DataFrame | None:  # noqa: ARG001
    """A column a class and the name of the class that came true; None unless every class did."""
    if "probabilities" not in frame.columns or label not in frame.columns:
        return None
    rows = frame[frame["probabilities"].notna() & frame[label].notna()]
    chances = pd.DataFrame(list(rows["probabilities"]), index=rows.index).astype(float)
    numbers = rows[label].astype(int)
    if rows.empty or set(numbers) != set(range(chances.shape[1])):
        return None
    chances.columns = pd.Index([f"class {name}" for name in chances.columns])
    return chances.assign(label=[chances.columns[number] for number in numbers])
