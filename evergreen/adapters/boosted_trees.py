"""Gradient-boosted trees, the usual best on tables: LightGBM (Ke et al. 2017), where it is installed.

The only module that imports LightGBM, an extra of this project. Takes raw numerics with their gaps and categories as
they are; its length is chosen on the latest days. Called by `evergreen/training/baselines.py` and, with more settings to
choose from, by `bench/quality.py`; `cross_fit` by `evergreen/training/data/teacher.py`.
"""

import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

NAME = "LightGBM"
ABSENT = "not trained: LightGBM is not installed; pip install 'evergreen[lightgbm]'"
ROUNDS = 500
VALIDATION_SHARE = 0.2
"""The latest days with about this share of all days choose how many trees."""
PLAIN: Mapping[str, float] = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 5.0,
}
FOLDS = 3
"""Of days, in `cross_fit`: every third day is in the same one."""
QUICK: Mapping[str, float] = {**PLAIN, "learning_rate": 0.1}
_FIXED = {"verbosity": -1, "num_threads": 1, "seed": 1, "deterministic": True, "force_row_wise": True}
_OBJECTIVES = {"binary": "binary", "multiclass": "multiclass", "regression": "l2"}


def installed() -> bool:
    """Is LightGBM there? It is an extra of this project."""
    return find_spec("lightgbm") is not None


def release() -> str | None:
    """Which LightGBM would train; None where it is not installed."""
    return version("lightgbm") if installed() else None


@dataclass(frozen=True)
class Trees:
    """A fitted model."""

    booster: Any
    categories: dict[str, tuple[str, ...]]
    settings: Mapping[str, float]
    tried: int

    @property
    def note(self) -> str:
        """How it was trained."""
        chosen = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        return f"{self.booster.num_trees()} trees, {chosen}"

    @property
    def content(self) -> bytes:
        """What it learnt, as bytes."""
        return bytes(self.booster.model_to_string().encode())

    def scores(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """(rows,) probabilities that the label is 1, or numbers; of several classes (rows, classes)."""
        return np.asarray(self.booster.predict(_inputs(rows, self.booster.feature_name(), self.categories)))


@dataclass(frozen=True)
class CrossFitted:
    """A model for each fold of days, which learnt from the other days."""

    folds: tuple[Trees, ...]

    def scores(self, rows: pd.DataFrame, days: NDArray[np.datetime64]) -> NDArray[np.float64]:
        """(rows,) what the model that did not learn from a row's day says of it, see `Trees.scores`; `days` (rows,)."""
        told, fold = np.empty(len(rows)), fold_of(days)
        for number, trees in enumerate(self.folds):
            if (here := fold == number).any():
                told[here] = trees.scores(rows[here])
        return told


def fit(
    task: Literal["binary", "multiclass", "regression"],
    rows: pd.DataFrame,
    labels: NDArray[Any],
    days: NDArray[np.datetime64],
    features: Mapping[str, Literal["numeric", "categorical"]],
    tries: Sequence[Mapping[str, float]] = (PLAIN,),
    rounds: int = ROUNDS,
    cpu_seconds: float = float("inf"),
) -> Trees:
    """Learn `labels` (rows,) from the columns `features` of `rows`; `days` (rows,) is when each was asked about.

    Each of `tries` learns from the earlier days and is judged on the latest, until `cpu_seconds` are spent; the best one's
    settings and length then learn from all days.
    """
    import lightgbm

    started = time.process_time()
    categories = _categories(rows, features)
    inputs = _inputs(rows, list(features), categories)
    fixed: dict[str, Any] = _FIXED | {"objective": _OBJECTIVES[task]}
    if task == "multiclass":
        fixed["num_class"] = int(labels.max()) + 1
    tries = [{**settings, "min_data_in_leaf": _leaf(settings, len(labels))} for settings in tries]
    latest = _latest(days)
    best: tuple[float, int, Mapping[str, float]] | None = None
    tried = 0
    for settings in tries:
        if latest.all() or (best is not None and time.process_time() - started >= cpu_seconds):
            break
        earlier = lightgbm.Dataset(inputs[~latest], labels[~latest])
        judge = lightgbm.Dataset(inputs[latest], labels[latest], reference=earlier)
        stop = lightgbm.early_stopping(30, verbose=False)
        found = lightgbm.train({**fixed, **settings}, earlier, rounds, valid_sets=[judge], callbacks=[stop])
        loss = next(iter(found.best_score["valid_0"].values()))
        tried += 1
        if best is None or loss < best[0]:
            best = loss, found.best_iteration, settings
    _, length, settings = best or (0.0, rounds, tries[0])
    booster = lightgbm.train({**fixed, **settings}, lightgbm.Dataset(inputs, labels), max(length, 1))
    return Trees(booster, categories, settings, tried)


def cross_fit(
    task: Literal["binary", "regression"],
    rows: pd.DataFrame,
    labels: NDArray[Any],
    days: NDArray[np.datetime64],
    features: Mapping[str, Literal["numeric", "categorical"]],
    rounds: int = 200,
) -> CrossFitted:
    """As `fit` with the settings `QUICK`, but `FOLDS` models, each of which learns from all folds of days but its own.

    A model's own fold says only when to stop. Each fold needs rows: three days in a row will do.
    """
    import lightgbm

    categories, fold = _categories(rows, features), fold_of(days)
    inputs = _inputs(rows, list(features), categories)
    settings = {**QUICK, "min_data_in_leaf": _leaf(QUICK, len(labels))}

    def without(number: int) -> Trees:
        own = fold == number
        others = lightgbm.Dataset(inputs[~own], labels[~own])
        judge = lightgbm.Dataset(inputs[own], labels[own], reference=others)
        stop = lightgbm.early_stopping(30, verbose=False)
        fixed = _FIXED | {"objective": _OBJECTIVES[task]}
        booster = lightgbm.train({**fixed, **settings}, others, rounds, valid_sets=[judge], callbacks=[stop])
        return Trees(booster, categories, settings, tried=1)

    with ThreadPoolExecutor(min(FOLDS, os.cpu_count() or 1)) as pool:  # each has one thread, so the sums stay the same
        return CrossFitted(tuple(pool.map(without, range(FOLDS))))


def fold_of(days: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """(rows,) which of the `FOLDS` folds each day is in."""
    return days.astype("datetime64[D]").astype(np.int64) % FOLDS


def _leaf(settings: Mapping[str, float], rows: int) -> float:
    """Rows of a leaf: what the settings say, but never more than a hundredth of all, or few rows would grow no tree."""
    return max(1, min(int(settings.get("min_data_in_leaf", 20)), rows // 100))


def _latest(days: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """(rows,) on the latest share of the days; all rows where there is but one day."""
    calendar = np.unique(days.astype("datetime64[D]"))
    return np.asarray(days.astype("datetime64[D]") >= calendar[-max(1, round(len(calendar) * VALIDATION_SHARE))])


def _categories(
    rows: pd.DataFrame, features: Mapping[str, Literal["numeric", "categorical"]]
) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(sorted(map(str, rows[name].dropna().unique())))
        for name, kind in features.items()
        if kind == "categorical"
    }


def _inputs(rows: pd.DataFrame, names: Sequence[str], categories: Mapping[str, tuple[str, ...]]) -> pd.DataFrame:
    columns = {
        name: pd.Categorical(rows[name].astype("string").astype(object), categories=categories[name])
        if name in categories
        else rows[name].to_numpy(np.float32, na_value=np.nan)
        for name in names
    }
    return pd.DataFrame(columns, index=rows.index)
