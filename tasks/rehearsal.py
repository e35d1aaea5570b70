"""What a backtest plays: one snapshot of history, the models of its slots, and copies of it with shuffled days.

Plain functions, no tasks: they wait for the processes of a `Stage`. Called by `tasks/backtest.py` and `tasks/plays.py`.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import SpecError
from evergreen.monitoring.backtest.broken import Feeds, no_feeds
from evergreen.monitoring.backtest.play import History
from evergreen.monitoring.backtest.rehearsals import Span, cuts, real, shuffled
from evergreen.spec import ModelSpec
from evergreen.types import TrainingSet
from evergreen.wiring import code_revision

if TYPE_CHECKING:
    from evergreen.training.rehearsal import Rehearsed, Stage

T = TypeVar("T")
NEAR = 2
"""Windows after it learnt that a fine-tuned model is scored over at first: the next fine-tune mostly takes its place."""


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
    feeds: Feeds = no_feeds
    revision: str = field(default_factory=code_revision)


def playable(spec: ModelSpec) -> ModelSpec:
    """The spec itself; raises `SpecError` where a backtest cannot play it.

    All models learn from one snapshot that begins where the last one's window does, so that window must not slide.
    """
    if spec.model.task != "binary":
        raise SpecError(f"{spec.name} is a {spec.model.task} model; a backtest plays binary ones so far")
    if spec.train.history_start is None:
        raise SpecError(
            f"the training window of {spec.name} slides over {spec.train.window_days} days; a backtest plays windows that "
            f"grow, so far. Set [train].history_start in {spec.name}.toml, if only for the backtest"
        )
    return spec


def rehearsal_of(
    spec: ModelSpec, training_set: TrainingSet, folder: Path, span: Span, stage: "Stage", workers: int
) -> Rehearsal:
    """Play over a snapshot: the part before `span` fits thresholds, its later half as if played; the rest is played."""
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.rehearsal import cheaper

    weeks = int((span.first - training_set.window.start) / timedelta(days=span.days))
    half = span.first - timedelta(days=span.days) * (weeks // 2 + 1)
    rows, fitting = load_training_set(training_set), Span(half, span.first, span.days)
    return Rehearsal(cheaper(spec), training_set, rows, folder, span, fitting, stage, workers)


class Models:
    """The models of one span's slots, and what fine-tuning makes of them; each is made once, when it is asked for."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self.cuts = cuts(rehearsal.rows, rehearsal.span.slots[:-1])
        self._known: dict[tuple[int, tuple[int, ...], bool], Future[Rehearsed]] = {}
        self._lock = threading.Lock()

    def all_slots(self) -> None:
        """Make the model of every slot, as many at a time as there are workers."""
        in_parallel(self._rehearsal, [partial(self.rehearsed, slot, ()) for slot in range(len(self.cuts))])

    def scores(self, slot: int, tuned: tuple[int, ...], end: int) -> NDArray[np.float64]:
        """(rows,) as `History.weights`."""
        near = not tuned or end <= tuned[-1] + NEAR
        return self.rehearsed(slot, tuned, whole=not near).scores

    def seconds(self, slot: int, tuned: tuple[int, ...]) -> float:
        """CPU time that the last step to it took."""
        return self.rehearsed(slot, tuned).seconds

    def rehearsed(self, slot: int, tuned: tuple[int, ...], *, whole: bool = False) -> "Rehearsed":
        """The model itself; what was tuned has scores of the next `NEAR` windows unless the `whole` rest is asked for."""
        key = (slot, tuned, whole)
        with self._lock:
            mine = key not in self._known
            found = self._known.setdefault(key, Future())
        if mine:  # whoever asks first makes it, the others wait
            try:
                found.set_result(self._make(slot, tuned, whole))
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def _make(self, slot: int, tuned: tuple[int, ...], whole: bool) -> "Rehearsed":
        from evergreen.training.rehearsal import Part, before
        from evergreen.training.run.job import TrainingJob

        here, spec, slots = self._rehearsal, self._rehearsal.spec, self._rehearsal.span.slots
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
        first = slots[learnt] - timedelta(days=spec.train.holdout_days)
        end = slots[min(learnt + NEAR, len(slots) - 1)] if tuned and not whole else None
        return here.stage.rehearse(Part(job, here.training_set, first, end)).result()


class Dealt(NamedTuple):
    """A copy of history whose days were dealt out anew."""

    history: History
    rows: pd.DataFrame


def dealer(rehearsal: Rehearsal, span: Span) -> Callable[[int], Dealt]:
    """By number, copies of the rows up to the span's end whose days are dealt out anew, with models of their own."""
    from evergreen.training.rehearsal import snapshot_of

    rows = rehearsal.rows[rehearsal.rows["event_timestamp"] < span.end]

    def deal(number: int) -> Dealt:
        dealt = shuffled(rows, rehearsal.spec.backtest.seed + number)
        made = snapshot_of(rehearsal.training_set, dealt, rehearsal.folder / "snapshots", span.first)
        models = Models(replace(rehearsal, training_set=made, rows=dealt, span=span))
        return Dealt(real(dealt, span, models.scores), dealt)

    return deal


def in_parallel(rehearsal: Rehearsal, work: Iterable[Callable[[], T]]) -> list[T]:
    """Each piece waits for a process of the stage, so threads are enough; one more than those keeps them busy."""
    with ThreadPoolExecutor(rehearsal.workers + 1) as pool:
        return list(pool.map(lambda piece: piece(), work))
