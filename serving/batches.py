"""Concurrent questions become batches: one thread a model answers, together, whatever came while it was busy.

A question that comes alone is answered at once; the more there are, the larger a batch gets, up to
`[serve].batch_rows`, so nobody waits for company. Questions larger than that are answered on a thread of their own. At
most `[serve].queue_rows` rows wait, and none longer than `[serve].timeout_seconds`: beyond that a question is refused,
for its client to ask again, rather than kept. Called by `routes.py`; what answers is `scoring.py`.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from anyio import to_thread

from evergreen.errors import EvergreenError
from evergreen.types import Prediction
from serving.metrics import Metrics
from serving.scoring import Question

Answers = list[list[Prediction] | Exception]


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

    def __init__(self, model: str, answer: Callable[[Sequence[Question]], Answers], metrics: Metrics) -> None:
        self._model = model
        self._answer = answer
        self._metrics = metrics
        self._waiting: deque[_Waiting] = deque()
        self._rows = 0
        self._closing = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name=f"batches-{model}", daemon=True)
        self._thread.start()

    async def ask(self, question: Question) -> list[Prediction]:
        """One answer a row, in order. Raises `Overloaded`, and what answering this question raises."""
        rules, rows = question.loaded.spec.serve, len(question)
        self._take(rows, rules.queue_rows)
        try:
            if rows > rules.batch_rows:
                (answered,) = await to_thread.run_sync(self._answer, [question])
                if isinstance(answered, Exception):
                    raise answered
                return answered
            loop = asyncio.get_running_loop()
            waiting = _Waiting(question, loop.create_future(), loop, time.monotonic() + rules.timeout_seconds)
            with self._changed:
                self._waiting.append(waiting)
                self._changed.notify()
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
                self._metrics.shed.labels(self._model, "full").inc()
                raise Overloaded(
                    f"{self._rows} rows wait for {self._model}, [serve].queue_rows is {queue_rows}; ask again later"
                )
            self._rows += rows
            self._metrics.queue_rows.labels(self._model).set(self._rows)

    def _give(self, rows: int) -> None:
        with self._changed:
            self._rows -= rows
            self._metrics.queue_rows.labels(self._model).set(self._rows)

    def _run(self) -> None:
        while batch := self._next_batch():
            now = time.monotonic()
            late = [one for one in batch if one.until < now or one.answer.cancelled()]
            batch = [one for one in batch if one not in late]
            self._deliver(late, [Overloaded(f"{self._model} did not get to it in time; ask again later") for _ in late])
            self._metrics.shed.labels(self._model, "late").inc(len(late))
            if batch:
                self._metrics.batch_rows.labels(self._model).observe(sum(len(one.question) for one in batch))
                self._deliver(batch, self._answer([one.question for one in batch]))

    def _next_batch(self) -> list[_Waiting]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            batch: list[_Waiting] = []
            rows = 0
            while self._waiting:
                rows += len(self._waiting[0].question)
                if batch and rows > self._waiting[0].question.loaded.spec.serve.batch_rows:
                    break
                batch.append(self._waiting.popleft())
            return batch

    def _deliver(self, batch: Sequence[_Waiting], answers: Answers) -> None:
        """Hand the answers to the event loops they are awaited on, each of which is woken once."""
        for loop in {one.loop for one in batch}:
            mine = [(one.answer, answer) for one, answer in zip(batch, answers, strict=True) if one.loop is loop]
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
