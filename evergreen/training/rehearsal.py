"""Models of the past, for a backtest: trained by the same engine on what was known then, scored over everything, kept.

Scores are kept by the digest of the job that made the model and of the rows they are of, so a backtest that was stopped
goes on, and policies and runs share models. A model trains with `[backtest]`'s cheaper settings, which it states.
Called by `tasks/backtest.py`.
"""

import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.adapters.feature_tables import content_digest
from evergreen.spec import ModelSpec
from evergreen.training.job import TrainingJob
from evergreen.training.launch import train
from evergreen.types import TrainingSet, Window


@dataclass(frozen=True)
class Rehearsed:
    """One model of the past."""

    scores: NDArray[np.float64]
    """(rows,) of all rows that were asked for."""
    seconds: float
    """Its training took."""


def cheaper(spec: ModelSpec) -> ModelSpec:
    """The spec as a backtest trains it: no auxiliary labels, one rank, and `[backtest]`'s network."""
    config = spec.backtest
    update = {
        "epochs": config.epochs,
        "hidden": config.hidden,
        "batch_size": config.batch_size,
        "members": 1,
        "ranks": 1,
        "auxiliary_thresholds": (),
    }
    return spec.model_copy(update={"train": spec.train.model_copy(update=update)})


def before(training_set: TrainingSet, cut: datetime) -> TrainingSet:
    """The same snapshot, of which only rows before `cut` train."""
    return training_set.model_copy(update={"holdout": Window(start=cut, end=training_set.window.end)})


def rehearse(
    spec: ModelSpec, training_set: TrainingSet, rows: pd.DataFrame, rows_digest: str, folder: Path, revision: str
) -> Rehearsed:
    """Train on `training_set` and score `rows`, whose content `rows_digest` names; at once where that was done before."""
    job = TrainingJob(training_set=training_set, spec=spec, code_revision=revision, folder=str(folder))
    key = f"{job.digest.removeprefix('sha256:')[:16]}-{rows_digest.removeprefix('sha256:')[:16]}"
    kept, told = folder / f"{key}.npy", folder / f"{key}.json"
    if kept.is_file() and told.is_file():
        return Rehearsed(np.load(kept), json.loads(told.read_text())["seconds"])
    model = train(job, on_line=lambda _: None)
    from evergreen.training.predictor import Predictor

    scores = Predictor.load(model.uri, model.digest).score({name: rows[name] for name in training_set.features})
    scratch = kept.with_name(f".{key}.{os.getpid()}.npy")
    np.save(scratch, scores)
    told.write_text(json.dumps({"seconds": model.seconds, "train": spec.train.model_dump(mode="json")}))
    scratch.replace(kept)
    return Rehearsed(scores, model.seconds)


def snapshot_of(like: TrainingSet, rows: pd.DataFrame, folder: Path, cut: datetime) -> TrainingSet:
    """Rows that are no part of real history, as a training set of their own: shuffled days."""
    rows = rows.sort_values(["event_timestamp", "example_id"], ignore_index=True)
    digest = content_digest(rows)
    path = folder / f"{digest.removeprefix('sha256:')}.parquet"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        rows.to_parquet(scratch, index=False, coerce_timestamps="us")
        scratch.replace(path)
    window = Window(start=rows["event_timestamp"].min(), end=like.window.end)
    return like.model_copy(
        update={
            "uri": str(path),
            "digest": digest,
            "rows": len(rows),
            "holdout_rows": int((rows["event_timestamp"] >= cut).sum()),
            "window": window,
            "holdout": Window(start=cut, end=window.end),
        }
    )
