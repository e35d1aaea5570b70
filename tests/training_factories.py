"""Small training sets and jobs: real Parquet files of made-up rows whose label can be learnt."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.spec import ModelSpec, parse_spec
from evergreen.training.data.columns import Columns, Snapshot
from evergreen.training.run.job import TrainingJob
from evergreen.types import Task, TrainingSet, Window
from tests.factories import a_digest

START = datetime(2013, 1, 1, tzinfo=UTC)
DAYS = 30


def some_rows(rows: int = 2_000, seed: int = 0, task: Task = "binary") -> pd.DataFrame:
    """`delay` and `carrier` tell of the label; `gap` is missing now and then; `town` has rare values.

    A multiclass label is one of three, the likelier a high one the longer the delay; a regression's is minutes.
    """
    draw = np.random.default_rng(seed)
    delay = draw.gamma(2.0, 10.0, rows)
    carrier = draw.integers(0, 5, rows)
    chance = 1 / (1 + np.exp(2.0 - 0.06 * delay - 0.8 * (carrier == 3)))
    step = pd.Timedelta(days=DAYS) / rows
    return pd.DataFrame(
        {
            "example_id": [f"row-{i:06d}" for i in range(rows)],
            "event_timestamp": pd.Series([START + i * step for i in range(rows)]).astype("datetime64[us, UTC]"),
            "label": _labels(draw, task, chance, delay),
            "delay": delay,
            "count": draw.poisson(2.0, rows),
            "gap": np.where(draw.random(rows) < 0.2, np.nan, draw.standard_normal(rows)),
            "carrier": pd.Series([f"C{i}" for i in carrier]),
            "town": pd.Series(["rare" if i % 700 == 0 else f"T{i % 3}" for i in range(rows)]),
        }
    )


def _labels(draw: np.random.Generator, task: Task, chance: NDArray[np.float64], delay: NDArray[np.float64]) -> Any:
    if task == "regression":
        return 3.0 * delay + 60.0 * chance + draw.normal(0.0, 10.0, len(delay))
    found = (draw.random(len(delay)) < chance).astype(np.int64)
    return found if task == "binary" else found * (1 + (delay > 25.0))


FEATURES = {"delay": "numeric", "count": "numeric", "gap": "numeric", "carrier": "categorical", "town": "categorical"}


def a_training_set(
    folder: Path,
    rows: int = 2_000,
    change: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame,
    task: Task = "binary",
    **fields: Any,
) -> TrainingSet:
    """A snapshot of `some_rows`, after `change`; the last tenth of the time is the holdout."""
    frame = change(some_rows(rows, task=task))
    path = folder / "training_set.parquet"
    frame.to_parquet(path)
    end = START + timedelta(days=DAYS)
    holdout = Window(start=end - timedelta(days=DAYS / 10), end=end)
    described = {
        "uri": str(path),
        "digest": a_digest("b"),
        "model": "toy",
        "feature_service": "toy",
        "as_of": end,
        "window": Window(start=START, end=end),
        "holdout": holdout,
        "rows": len(frame),
        "holdout_rows": int((frame["event_timestamp"] >= holdout.start).sum()),
        "features": FEATURES,
    }
    return TrainingSet.model_validate(described | fields)


def a_spec(task: Task = "binary", classes: tuple[str, ...] = (), **train: Any) -> ModelSpec:
    """Small enough to train in a moment."""
    quick = {"epochs": 2, "batch_size": 128, "hidden": [16, 8], "ranks": 1, "seed": 7}
    data = {
        "auxiliary_label": "minutes" if "auxiliary_thresholds" in train else None,
        "domain": "toys",
        "examples": "toys",
        "event_time": "t",
        "labels": "l",
        "label": "y",
        "feature_service": "toy",
        "classes": classes,
    }
    return parse_spec({"model": {"name": "toy", "task": task}, "data": data, "train": quick | train})


def a_job(folder: Path, training_set: TrainingSet, **train: Any) -> TrainingJob:
    """A job under `folder`."""
    return TrainingJob(training_set=training_set, spec=a_spec(**train), code_revision="r1", folder=str(folder))


def columns_of(training_set: TrainingSet) -> tuple[Columns, Columns]:
    """The rows that train and those that validate, of a set small enough to be one stretch."""
    [both] = Snapshot(training_set).stretches()
    return both
