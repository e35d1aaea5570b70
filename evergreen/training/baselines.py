"""Does the network earn its place? Plain models trained beside a candidate, on the same rows, judged on the same holdout.

Logistic regression always, gradient-boosted trees where LightGBM is installed; each a function of rows in a file of its
own under `adapters/`. Seconds where a network takes a minute, and bounded: beyond `ROWS` they learn from every second,
third, … row. The figures are kept, so a retrain that is run again does not train them again; the models are not, since
nobody serves them. Free of torch. To add one, fit it in `_train_all`.
"""

import hashlib
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.adapters import boosted_trees, logistic
from evergreen.adapters.feature_tables import load_training_set
from evergreen.evaluation import evaluate
from evergreen.spec import ModelSpec
from evergreen.training.artifact import write_durably
from evergreen.types import Baseline, Baselines, TrainingSet

ROWS = 400_000
"""A year of flights fits; logistic regression then holds half a gigabyte."""


class Fitted(Protocol):
    """A plain model that has learnt."""

    @property
    def content(self) -> bytes:
        """What it learnt, as bytes."""

    def scores(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """As `evaluate` takes them."""


def train_baselines(spec: ModelSpec, training_set: TrainingSet, code_revision: str, folder: Path) -> Baselines:
    """Train the plain models on the rows before the holdout and judge them on it, or return what that came to before.

    The same rows, task and code give the same figures. `folder` keeps them. Raises `DataError` when the training set's file
    is gone or altered, or no feature says anything.
    """
    path = folder / f"{_digest(spec, training_set, code_revision)}.json"
    try:
        return Baselines.model_validate_json(path.read_bytes())
    except (OSError, ValueError):  # not trained yet, or somebody altered what we kept
        found = _train_all(spec, training_set)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, found.model_dump_json().encode())
    return found


def _train_all(spec: ModelSpec, training_set: TrainingSet) -> Baselines:
    rows = load_training_set(training_set)
    before = (rows["event_timestamp"] < training_set.holdout.start).to_numpy()
    training, holdout = rows[before], rows[~before]
    training = training.iloc[:: -(-len(training) // ROWS)]
    labels, days = training["label"].to_numpy(), _moments(training)
    task, features = spec.model.task, training_set.features

    def trained(name: str, fit: Callable[[], tuple[Fitted, str]]) -> Baseline:
        started = time.process_time()
        fitted, note = fit()
        evaluation = evaluate(
            model=spec.name,
            artifact="sha256:" + hashlib.sha256(fitted.content).hexdigest(),
            holdout=training_set.holdout,
            holdout_digest=training_set.digest,
            labels=holdout["label"].to_numpy(),
            scores=fitted.scores(holdout),
            days=_moments(holdout),
            slices={},
            task=task,
        )
        return Baseline(name=name, evaluation=evaluation, note=note, cpu_seconds=time.process_time() - started)

    def linear() -> tuple[Fitted, str]:
        return logistic.fit(task, training, labels, features), logistic.NOTE

    def trees() -> tuple[Fitted, str]:
        fitted = boosted_trees.fit(task, training, labels, days, features)
        return fitted, fitted.note

    tried = [trained(logistic.NAME, linear)]
    if boosted_trees.installed():
        tried.append(trained(boosted_trees.NAME, trees))
    else:
        tried.append(Baseline(name=boosted_trees.NAME, evaluation=None, note=boosted_trees.ABSENT))
    return Baselines(tried=tuple(tried))


def _moments(rows: pd.DataFrame) -> NDArray[Any]:
    return np.asarray(rows["event_timestamp"].dt.tz_convert("UTC").dt.tz_localize(None))


def _digest(spec: ModelSpec, training_set: TrainingSet, code_revision: str) -> str:
    """Of all that shapes the figures: the rows, the task, the code, and whose code the models are."""
    recipe = {
        "rows": training_set.digest,
        "features": list(training_set.features.items()),
        "train_before": training_set.holdout.start.isoformat(),
        "task": spec.model.task,
        "code_revision": code_revision,
        "versions": [version("scikit-learn"), boosted_trees.release()],
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
