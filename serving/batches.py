"""Concurrent questions become batches: whatever came while one was answered is answered together next.

A question that comes alone is answered at once; the more there are, the larger a batch gets, up to
`[serve].batch_rows`, so nobody waits for company. Where answers prove quick they are given on the event loop itself, once
an iteration of it brings nobody new, since a hop to a thread and back costs as much as scoring; where not, by a thread of
the model's own. Questions larger than a batch are answered on a thread of their own, of which there are `THREADS` at most.
At most `[serve].queue_rows` rows wait, and none longer than `[serve].timeout_seconds`: beyond that a question is refused,
for its client to ask again, rather than kept. Called by `predict.py`; what answers is `scoring.py`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from threading import Condition, Thread

from anyio import CapacityLimiter, to_thread

from evergreen.errors import EvergreenError
from evergreen.types import Prediction
from serving.metrics import Metrics
from serving.scoring import Question

Answers = list[list[Prediction] | Exception]
QUICK_SECONDS = 0.02
"""What a batch may take on the event loop, where a health check waits for it too; one that takes longer is the last there."""
PROVEN = 20
"""So many batches in a row were quick: then the next is answered on the event loop."""
LOOP_ROWS = 32
"""At most so many are answered on the event loop between two looks at what came."""

THREADS = 16
"""Of one server, for what is too much for the event loop. More would only share the cores; fewer might all wait for a Redis."""


class Overloaded(EvergreenError):
    """More is asked than can be answered in time; ask again a little later."""


@dataclass(frozen=True)
class _Waiting:
    question: Question
    answer: "asyncio.Future[list[Prediction]]"
    loop: asyncio.AbstractEventLoop
    until: float
    """On the monotonic clock."""


class Batches:
    """The questions one model is asked in this process."""

    def __init__(
        self,
        model: str,
        answer: Callable[[Sequence[Question]], Answers],
        metrics: Metrics,
        threads: CapacityLimiter | None = None,
    ) -> None:
        """`threads` are for questions larger than a batch; without it they share those of everything else."""
        self._model = model
        self._answer = answer
        self._threads = threads
        self._shed = metrics.shed
        self._queue_rows, self._batch_rows = metrics.queue_rows.labels(model), metrics.batch_rows.labels(model)
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._closing = False
        self._quick = 0
        """How many batches in a row."""
        self._gathering = False
        """The event loop is about to answer."""
        self._changed = Condition()
        self._thread = Thread(target=self._run, name=f"batches-{model}", daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> list[Prediction]:
        """One answer a row, in order. Raises `Overloaded`, and what answering this question raises."""
        rules, rows = question.loaded.spec.serve, len(question)
        self._take(rows, rules.queue_rows)
        try:
            if rows > rules.batch_rows:
                (answered,) = await to_thread.run_sync(self._answer, [question], limiter=self._threads)
                if isinstance(answered, Exception):
                    raise answered
                return answered
            loop = asyncio.get_running_loop()
            waiting = _Waiting(question, loop.create_future(), loop, time.monotonic() + rules.timeout_seconds)
            with self._changed:
                self._waiting.append(waiting)
                self._call(loop)
            return await waiting.answer
        finally:
            self._give(rows)

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _take(self, rows: int, queue_rows: int) -> None:
        with self._changed:
            # One question always finds room in an empty queue, however large it is.
            if self._closing or (self._rows and self._rows + rows > queue_rows):
                self._shed.labels(self._model, "full").inc()
                raise Overloaded(
                    f"{self._rows} rows wait for {self._model}, [serve].queue_rows is {queue_rows}; ask again later"
                )
            self._rows += rows
            self._queue_rows.set(self._rows)

    def _give(self, rows: int) -> None:
        with self._changed:
            self._rows -= rows
            self._queue_rows.set(self._rows)

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have what waits answered; with the lock held."""
        if self._quick < PROVEN:
            self._changed.notify()
        elif not self._gathering:
            self._gathering = True
            loop.call_soon(self._gather, loop, 0)

    def _gather(self, loop: asyncio.AbstractEventLoop, before: int) -> None:
        """On the event loop: a batch, unless more came since `before` waited, for then more may be on their way."""
        with self._changed:
            if before < len(self._waiting) < LOOP_ROWS:
                loop.call_soon(self._gather, loop, len(self._waiting))
                return
            batch = self._next_batch(LOOP_ROWS)
        try:
            self._answer_batch(batch, loop)
        finally:
            with self._changed:
                self._gathering = False
                if self._waiting:
                    self._call(loop)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                batch = self._next_batch()
            if not batch:
                return
            self._answer_batch(batch)

    def _next_batch(self, most_rows: float = inf) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._waiting:
            first = self._waiting[0].question
            rows += len(first)
            if batch and rows > min(most_rows, first.loaded.spec.serve.batch_rows):
                break
            batch.append(self._waiting.popleft())
        return batch

    def _answer_batch(self, batch: list[_Waiting], here: asyncio.AbstractEventLoop | None = None) -> None:
        now = time.monotonic()
        late = [one for one in batch if one.until < now or one.answer.cancelled()]
        if late:
            batch = [one for one in batch if one not in late]
            self._shed.labels(self._model, "late").inc(len(late))
            refusals: Answers = [Overloaded(f"{self._model} did not get to it in time; ask again later") for _ in late]
            _deliver(late, refusals, here)
        if batch:
            rows = sum(len(one.question) for one in batch)
            self._batch_rows.observe(rows)
            answers = self._answer([one.question for one in batch])
            # Of a queue that had grown, more is answered together than ever on the event loop: its share counts.
            seconds = (time.monotonic() - now) * LOOP_ROWS / max(LOOP_ROWS, rows)
            self._quick = self._quick + 1 if seconds < QUICK_SECONDS else 0
            _deliver(batch, answers, here)


def _deliver(batch: Sequence[_Waiting], answers: Answers, here: asyncio.AbstractEventLoop | None) -> None:
    """Hand the answers to the event loops they are awaited on, each of which is woken once; `here` is awake."""
    for loop in {one.loop for one in batch}:
        mine = [(one.answer, answer) for one, answer in zip(batch, answers, strict=True) if one.loop is loop]
        if loop is here:
            _resolve(mine)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, mine)
        except RuntimeError:  # the loop is closed, so nobody waits any more
            continue


def _resolve(answers: Sequence[tuple["asyncio.Future[list[Prediction]]", list[Prediction] | Exception]]) -> None:
    for future, answer in answers:
        if future.cancelled():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
