"""Models of the past, for a backtest: trained by the same engine on what was known then, scored over what came, kept.

Scores are kept by the digest of the job that made the model and of the rows they are of, so a backtest that was stopped
goes on, and policies and runs share models. A model trains with `[backtest]`'s cheaper settings, which it states.
`rehearse` works in the process it is called in: a `Stage` has some that live on, import torch once and read the rows once.
Called by `tasks/backtest.py`.
"""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.adapters.feature_tables import content_digest, load_training_set
from evergreen.spec import ModelSpec
from evergreen.training.artifact import write_durably
from evergreen.training.data.preprocessing import Coded, code, numbers
from evergreen.training.run.job import Base, TrainingJob
from evergreen.training.run.processes import locked
from evergreen.types import Digest, TrainingSet, Window

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What is to be trained and what of it is to be scored; it travels to another process."""

    job: TrainingJob
    scored: TrainingSet
    """Whose rows are scored."""
    first: datetime
    """Rows before this are left out: nobody asks what a model says of what it learnt from,"""
    end: datetime | None = None
    """and those from this on."""


@dataclass(frozen=True)
class Rehearsed:
    """One model of the past."""

    scores: NDArray[np.float64]
    """(rows,) of all rows that were asked for, NaN where one was left out."""
    seconds: float
    """CPU time its training took."""
    uri: str
    digest: Digest

    def base(self, since: datetime) -> Base:
        """As what a fine-tune on the rows from `since` on begins with."""
        return Base(uri=self.uri, digest=self.digest, since=since)


class Stage:
    """Processes that train and score, one model each at a time, and end with the one that made them."""

    def __init__(self, workers: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self._pool = ProcessPoolExecutor(workers, context, initializer=_end_with, initargs=(os.getpid(),))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def call(self, what: Callable[..., T], *arguments: object) -> Future[T]:
        """Anything else that takes long, in one of the processes; it travels there and back."""
        return self._pool.submit(what, *arguments)

    def rehearse(self, part: Part) -> Future[Rehearsed]:
        """`rehearse`, in one of the processes; what was made before is read here and at once."""
        if _kept(part).is_file():
            found: Future[Rehearsed] = Future()
            found.set_result(_read(part))
            return found
        return self._pool.submit(rehearse, part)


def cheaper(spec: ModelSpec) -> ModelSpec:
    """The spec as a backtest trains it: no auxiliary labels, no teacher, one rank, and `[backtest]`'s network."""
    config = spec.backtest
    update = {
        "epochs": config.epochs,
        "hidden": config.hidden,
        "batch_size": config.batch_size,
        "members": 1,
        "ranks": 1,
        "auxiliary_thresholds": (),
        "teacher_share": 0.0,
    }
    return spec.model_copy(update={"train": spec.train.model_copy(update=update)})


def before(training_set: TrainingSet, cut: datetime) -> TrainingSet:
    """The same snapshot, of which only rows before `cut` train."""
    return training_set.model_copy(update={"holdout": Window(start=cut, end=training_set.window.end)})


def rehearse(part: Part) -> Rehearsed:
    """Train and score, or read what that came to before. Killed, it goes on from the job's checkpoint."""
    if _kept(part).is_file():
        return _read(part)
    from evergreen.training.predictor import Predictor
    from evergreen.training.run.worker import train_rank

    job = part.job
    job.path.mkdir(parents=True, exist_ok=True)
    with locked(job.path / "lock", lambda: None):
        if _kept(part).is_file():
            return _read(part)
        spent = job.path / "cpu_seconds"
        if not job.result_path.is_file() or not spent.is_file():
            started = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                train_rank(job, time.time())
            write_durably(spent, str(time.process_time() - started).encode())
        model = json.loads(job.result_path.read_text())
        predictor = Predictor.load(model["uri"], model["digest"])
        rows = _rows(part.scored.model_dump_json())
        asked = rows.moments >= _naive(part.first)
        if part.end is not None:
            asked &= rows.moments < _naive(part.end)
        scores = np.full(len(asked), np.nan)
        scores[asked] = predictor.score_columns(*rows.of(asked))
        told = {"seconds": float(spent.read_text()), "uri": model["uri"], "digest": model["digest"]}
        file = io.BytesIO()
        np.savez(file, scores=scores, told=np.array(json.dumps(told)))
        write_durably(_kept(part), file.getvalue())
        shutil.rmtree(job.checkpoints_path, ignore_errors=True)
    return _read(part)


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
    end = max(like.window.end, cut + timedelta(days=1))  # where all rows come before the cut nothing is held out
    window = Window(start=rows["event_timestamp"].min(), end=end)
    return like.model_copy(
        update={
            "uri": str(path),
            "digest": digest,
            "rows": len(rows),
            "holdout_rows": int((rows["event_timestamp"] >= cut).sum()),
            "window": window,
            "holdout": Window(start=cut, end=end),
        }
    )


@dataclass(frozen=True)
class _Rows:
    """Inputs of a snapshot as an encoder takes them fastest."""

    moments: NDArray[np.datetime64]
    numerics: dict[str, NDArray[np.float32]]
    categoricals: dict[str, Coded]

    def of(self, some: NDArray[np.bool_]) -> tuple[dict[str, NDArray[np.float32]], dict[str, Coded]]:
        """Of the rows where `some` (rows,) is true."""
        return (
            {name: values[some] for name, values in self.numerics.items()},
            {name: column[some] for name, column in self.categoricals.items()},
        )


@lru_cache(maxsize=2)
def _rows(scored: str) -> _Rows:
    """Read once a process; `scored` is a `TrainingSet` as JSON."""
    training_set = TrainingSet.model_validate_json(scored)
    frame = load_training_set(training_set)
    kinds = training_set.features
    return _Rows(
        frame["event_timestamp"].to_numpy(dtype="datetime64[us]"),
        {name: numbers(name, frame[name]) for name, kind in kinds.items() if kind == "numeric"},
        {name: code(frame[name]) for name, kind in kinds.items() if kind != "numeric"},
    )


def _kept(part: Part) -> Path:
    names = (part.job.digest, part.scored.digest)
    ends = "-".join(f"{at:%Y%m%d%H%M}" for at in (part.first, part.end) if at is not None)
    return Path(part.job.folder) / f"{'-'.join(name.removeprefix('sha256:')[:16] for name in names)}-{ends}.npz"


def _naive(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "us")


def _read(part: Part) -> Rehearsed:
    with np.load(_kept(part)) as file:
        told = json.loads(str(file["told"]))
        return Rehearsed(scores=file["scores"], **told)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: the kernel's own signal would come when the *thread* that made it ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
