"""What a backtest plays: one snapshot of history, the models of its slots, and copies of it with shuffled days.

Plain functions, no tasks: they wait for the processes of a `Stage`. Called by `tasks/backtest.py`.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import SpecError
from evergreen.monitoring.backtest import History
from evergreen.monitoring.rehearsals import Span, cuts, shuffled
from evergreen.spec import ModelSpec
from evergreen.types import TrainingSet
from evergreen.wiring import code_revision

if TYPE_CHECKING:
    from evergreen.training.rehearsal import Rehearsed, Stage

T = TypeVar("T")


@dataclass(frozen=True)
class Rehearsal:
    """What the tasks of one backtest hand on; it does not travel."""

    spec: ModelSpec
    """As written, but for `[train]`, which is `[backtest]`'s cheaper one."""
    training_set: TrainingSet
    rows: pd.DataFrame
    folder: Path
    span: Span
    fitting: Span
    stage: "Stage"
    workers: int
    revision: str = field(default_factory=code_revision)


def rehearsal_of(
    spec: ModelSpec, training_set: TrainingSet, folder: Path, span: Span, stage: "Stage", workers: int
) -> Rehearsal:
    """Play over a snapshot: the part before `span` fits thresholds, its later half as if played; the rest is played.

    Raises `SpecError` where the model's task is none that a backtest plays.
    """
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.rehearsal import cheaper

    if spec.model.task != "binary":
        raise SpecError(f"{spec.name} is a {spec.model.task} model; a backtest plays binary ones so far")
    weeks = int((span.first - training_set.window.start) / timedelta(days=span.days))
    half = span.first - timedelta(days=span.days) * (weeks // 2 + 1)
    rows, fitting = load_training_set(training_set), Span(half, span.first, span.days)
    return Rehearsal(cheaper(spec), training_set, rows, folder, span, fitting, stage, workers)


class Models:
    """The models of one span's slots, and what fine-tuning makes of them; each is made once, when it is asked for."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self.cuts = cuts(rehearsal.rows, rehearsal.span.slots[:-1])
        self._known: dict[tuple[int, tuple[int, ...]], Rehearsed] = {}
        self._lock = threading.Lock()

    def all_slots(self) -> None:
        """Make the model of every slot, as many at a time as there are workers."""
        in_parallel(self._rehearsal, [partial(self.rehearsed, slot, ()) for slot in range(len(self.cuts))])

    def scores(self, slot: int, tuned: tuple[int, ...]) -> NDArray[np.float64]:
        """(rows,) as `History.weights`."""
        return self.rehearsed(slot, tuned).scores

    def seconds(self, slot: int, tuned: tuple[int, ...]) -> float:
        """CPU time that the last step to it took."""
        return self.rehearsed(slot, tuned).seconds

    def rehearsed(self, slot: int, tuned: tuple[int, ...]) -> "Rehearsed":
        """The model itself."""
        key = (slot, tuned)
        if key not in self._known:
            found = self._make(slot, tuned)
            with self._lock:
                self._known[key] = found
        return self._known[key]

    def _make(self, slot: int, tuned: tuple[int, ...]) -> "Rehearsed":
        from evergreen.training.job import TrainingJob
        from evergreen.training.rehearsal import Part, before

        here, spec = self._rehearsal, self._rehearsal.spec
        learnt = tuned[-1] if tuned else slot
        base = None
        if tuned:
            since = self.cuts[learnt] - timedelta(days=spec.remedy.tune_days)
            base, spec = self.rehearsed(slot, tuned[:-1]).base(since), spec.fine_tuning
        job = TrainingJob(
            training_set=before(here.training_set, self.cuts[learnt]),
            spec=spec,
            code_revision=here.revision,
            folder=str(here.folder),
            base=base,
        )
        first = here.span.slots[learnt] - timedelta(days=spec.train.holdout_days)
        return here.stage.rehearse(Part(job, here.training_set, first)).result()


def copies(rehearsal: Rehearsal, span: Span) -> list[History]:
    """Shuffled copies of the rows up to the span's end, each with its own first model."""
    from evergreen.training.job import TrainingJob
    from evergreen.training.rehearsal import Part, snapshot_of

    whole = rehearsal.training_set
    rows = rehearsal.rows[rehearsal.rows["event_timestamp"] < span.end].reset_index(drop=True)
    scored = snapshot_of(whole, rows, rehearsal.folder / "snapshots", span.end)

    def train(moved: pd.DataFrame, cut: datetime) -> NDArray[np.float64]:
        made = snapshot_of(whole, moved, rehearsal.folder / "snapshots", cut)
        job = TrainingJob(
            training_set=made, spec=rehearsal.spec, code_revision=rehearsal.revision, folder=str(rehearsal.folder)
        )
        # Days are dealt out anew, so any row may be asked about.
        return rehearsal.stage.rehearse(Part(job, scored, scored.window.start)).result().scores

    config = rehearsal.spec.backtest
    seeds = range(config.seed, config.seed + config.copies)
    return in_parallel(rehearsal, [partial(shuffled, rows, span, train, seed) for seed in seeds])


def in_parallel(rehearsal: Rehearsal, work: Iterable[Callable[[], T]]) -> list[T]:
    """Each piece waits for a process of the stage, so threads are enough; one more than those keeps them busy."""
    with ThreadPoolExecutor(rehearsal.workers + 1) as pool:
        return list(pool.map(lambda piece: piece(), work))
