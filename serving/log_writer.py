"""Predictions on their way to the log: a bounded queue and one thread that writes it in batches.

Serving never waits for the log: when the queue is full, or the log stays dead, rows are counted as lost. A batch that
failed is tried again, which is safe because the log knows a prediction by its id. Not durable: what is queued when the
process is killed is gone, as is every answer that was not yet acknowledged by the log.
Called by `scoring.py`; `runtime.py` starts and drains it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition, Thread

from evergreen.types import Prediction
from serving.metrics import Metrics

logger = logging.getLogger(__name__)


class LogWriter:
    """A bounded queue in front of `write`, which stores predictions and returns how many were new."""

    def __init__(
        self,
        write: Callable[[Sequence[Prediction]], int],
        metrics: Metrics,
        *,
        capacity_rows: int = 20_000,
        batch_rows: int = 1_000,
        linger_seconds: float = 0.1,
        attempts: int = 6,
        backoff_seconds: float = 0.2,
    ) -> None:
        self._write = write
        self._metrics = metrics
        self._capacity_rows = capacity_rows
        self._batch_rows = batch_rows
        self._linger_seconds = linger_seconds
        self._attempts = attempts
        self._backoff_seconds = backoff_seconds
        self._waiting: deque[Prediction] = deque()
        self._writing = 0
        self._flushing = 0
        self._closing = False
        self._lost = 0
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="prediction-log", daemon=True)

    @property
    def lost_rows(self) -> int:
        """How many predictions were answered and are not in the log, so far."""
        return self._lost

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def record(self, predictions: Sequence[Prediction], *, wait_seconds: float = 0.0) -> int:
        """Queue predictions and return how many found room; the others are counted as lost.

        `wait_seconds` lets a bulk job wait for room; serving leaves it at 0 and is never held up.
        """
        deadline = time.monotonic() + wait_seconds
        taken = 0
        with self._changed:
            while taken < len(predictions) and not self._closing:
                room = self._capacity_rows - len(self._waiting) - self._writing
                if room > 0:
                    self._waiting.extend(predictions[taken : taken + room])
                    taken = min(len(predictions), taken + room)
                    self._changed.notify_all()
                elif not self._changed.wait(max(0.0, deadline - time.monotonic())):
                    break
            self._show_depth()
        self._lose(len(predictions) - taken, "serving shuts down" if self._closing else "the queue is full")
        return taken

    def flush(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until the queue is empty: everything is written, or in `lost_rows`. False when that takes longer."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            empty = self._changed.wait_for(lambda: not self._waiting and not self._writing, timeout_seconds)
            self._flushing -= 1
            return empty

    def close(self, timeout_seconds: float = 10.0) -> int:
        """Refuse new rows, write what is queued for at most `timeout_seconds`, and return how many were lost in all."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        with self._changed:
            left = len(self._waiting) + self._writing
            self._waiting.clear()
            self._show_depth()
        self._lose(left, "serving shut down before they were written")
        return self._lost

    def _run(self) -> None:
        while batch := self._next_batch():
            self._store(batch)
            with self._changed:
                self._writing = 0
                self._show_depth()
                self._changed.notify_all()

    def _next_batch(self) -> list[Prediction]:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            # A transaction a row would compete with serving for the interpreter: let a batch come together first.
            self._changed.wait_for(self._is_due, self._linger_seconds)
            batch = [self._waiting.popleft() for _ in range(min(self._batch_rows, len(self._waiting)))]
            self._writing = len(batch)
            return batch

    def _is_due(self) -> bool:
        return self._closing or self._flushing > 0 or len(self._waiting) >= self._batch_rows

    def _store(self, batch: list[Prediction]) -> None:
        for attempt in range(1, self._attempts + 1):
            try:
                new = self._write(batch)
            except Exception as error:  # whatever the log's database throws, serving goes on
                self._metrics.log_failures.inc()
                logger.warning("writing %d predictions failed, attempt %d: %s", len(batch), attempt, error)
                self._pause(self._backoff_seconds * 2 ** (attempt - 1))
            else:
                self._metrics.log_rows.labels("written").inc(new)
                self._metrics.log_rows.labels("repeated").inc(len(batch) - new)
                return
        self._lose(len(batch), f"the log failed {self._attempts} times")

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _lose(self, rows: int, why: str) -> None:
        if rows:
            with self._changed:
                self._lost += rows
            self._metrics.log_rows.labels("lost").inc(rows)
            logger.error("%d predictions were answered but are not in the log: %s", rows, why)

    def _show_depth(self) -> None:
        self._metrics.log_queue_rows.set(len(self._waiting) + self._writing)
