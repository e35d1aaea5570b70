"""Predictions on their way to the log: a spool on this machine's disk, and one thread that carries it over in batches.

At least once: an answer is in the spool before it is given, and leaves it when the log has it; a batch is tried until
then, also by the next process, and the log knows a prediction by its id. Serving never waits for the log, and memory
does not follow how long it is away. Lost, and counted as such, is only what the spool had no room for (the oldest goes),
what the disk did not take, and what the log refuses for what it holds.
Called by `scoring.py`; `runtime.py` starts and drains it, and says who writes: `carrier.py`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Condition, Event, Thread

import orjson

from evergreen.errors import DataError
from evergreen.types import Prediction
from serving.carrier import Pace
from serving.metrics import Metrics
from serving.spool import NotKept, Spool

logger = logging.getLogger(__name__)

SYNC_SECONDS = 0.01
"""At most so much of what was answered, and the time of one fsync, is lost to a power cut; to a killed process nothing."""
MOST_BACKOFF_SECONDS = 5.0
KEEPS_UP_ROWS = 1_000
"""With no more in the spool, between two batches, the log keeps up, as while there is nothing;"""
BEHIND_SECONDS = 5.0
"""where it did not for so long, it is behind,"""
URGENT_SECONDS = 20.0
"""and for so long, it cannot wait."""


class LogWriter:
    """A spool in front of `write`, which stores predictions, each as its JSON, and returns how many were new.

    `write` raises `DataError` for predictions that will never be taken; after any other error they are tried again.
    """

    def __init__(
        self,
        write: Callable[[Sequence[bytes]], int],
        spool: Spool,
        metrics: Metrics,
        *,
        batch_rows: int = 1_000,
        linger_seconds: float = 0.1,
        backoff_seconds: float = 0.2,
    ) -> None:
        self._write = write
        self._spool = spool
        self._metrics = metrics
        self._batch_rows = batch_rows
        self._linger_seconds = linger_seconds
        self._backoff_seconds = backoff_seconds
        self._flushing = 0
        self._closing = False
        self._until = 0.0
        self._kept_up_at = time.monotonic()
        self._lost = 0
        self._idle = False
        """The carrier waits for a first row."""
        self._changed = Condition()
        self._appended = Event()
        self._carrier = Thread(target=self._carry, name="prediction-log", daemon=True)
        self._syncer = Thread(target=self._sync, name="prediction-spool", daemon=True)
        self._show_depth()
        metrics.log_torn_bytes.inc(spool.torn_bytes)

    @property
    def lost_rows(self) -> int:
        """How many predictions were answered and are neither in the log nor in the spool, so far."""
        return self._lost

    @property
    def pace(self) -> Pace:
        """How soon the log should be written, whatever else there is to do: at once where somebody waits for it."""
        behind_seconds = time.monotonic() - self._kept_up_at
        if self._closing or self._flushing or behind_seconds > URGENT_SECONDS:
            return "urgent"
        return "steady" if behind_seconds > BEHIND_SECONDS else "quiet"

    def start(self) -> None:
        """Start the threads."""
        self._carrier.start()
        self._syncer.start()

    def record(self, predictions: Sequence[Prediction], *, wait_seconds: float = 0.0) -> int:
        """Put predictions into the spool and return how many; the others are counted as lost.

        A full spool drops its oldest. `wait_seconds` lets a bulk job wait for room instead; serving leaves it at 0.
        """
        rows = [_as_json(prediction) for prediction in predictions]
        if not rows or not self._may_append(rows, wait_seconds):
            self._lose(len(rows), "the log is closed" if self._closing else "the spool stayed full", "new")
            return 0
        try:
            self._lose(self._spool.append(rows), "the spool is full", "oldest")
        except NotKept as error:
            self._lose(error.lost, "the spool is full", "oldest")
            self._lose(len(rows), f"the disk does not take them: {error}", "new")
            return 0
        self._appended.set()
        with self._changed:
            if self._idle or self._is_due():  # else the carrier lingers, and would wake for each answer to see that
                self._changed.notify_all()
        return len(rows)

    def flush(self, timeout_seconds: float = 30.0) -> bool:
        """Wait until the spool is empty: everything is in the log, or in `lost_rows`. False when that takes longer."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            empty = self._changed.wait_for(lambda: not self._spool.waiting, timeout_seconds)
            self._flushing -= 1
            return empty

    def close(self, timeout_seconds: float = 10.0) -> int:
        """Refuse new rows, carry over what waits for at most `timeout_seconds`; returns how many stay for the next process."""
        with self._changed:
            self._closing = True
            self._until = time.monotonic() + timeout_seconds
            self._changed.notify_all()
        self._appended.set()
        for thread in (self._carrier, self._syncer):
            if thread.is_alive():
                thread.join(max(0.0, self._until - time.monotonic()))
        left = self._spool.waiting
        if left:
            logger.warning("%d predictions stay in the spool; the next process that opens it writes them", left)
        self._spool.close()
        return left

    def _may_append(self, rows: Sequence[bytes], wait_seconds: float) -> bool:
        with self._changed:
            if wait_seconds:
                self._changed.wait_for(lambda: self._closing or self._spool.has_room(rows), wait_seconds)
                return not self._closing and self._spool.has_room(rows)
            return not self._closing

    def _sync(self) -> None:
        while not self._closing:
            self._appended.wait()
            self._appended.clear()
            try:
                self._spool.sync()
            except OSError as error:  # the process still has it; only a power cut would lose it
                logger.warning("the spool cannot be synced: %s", error)
            time.sleep(SYNC_SECONDS)

    def _carry(self) -> None:
        """Until it is closed, whatever fails: nobody would begin it again."""
        batch: list[bytes] = []
        backoff_seconds = self._backoff_seconds
        while True:
            try:
                self._await_batch()
                batch = batch or self._read()
                if self._closing and (not batch or time.monotonic() > self._until):
                    return
                if not self._store(batch):
                    return  # closing, and the log is away: it stays in the spool
                batch = []
                self._spool.acknowledge()
                self._show_depth()
            except Exception as error:  # as of the disk, or of a process that has no file left to open
                self._metrics.log_failures.inc()
                logger.exception("carrying predictions over failed: %s", error)
                if self._closing:
                    return
                backoff_seconds = self._back_off(backoff_seconds)
            else:
                backoff_seconds = self._backoff_seconds
            with self._changed:
                self._changed.notify_all()

    def _await_batch(self) -> None:
        """Until rows wait, and a moment longer for more to come together; not at all while it is closing."""
        with self._changed:
            self._idle = True
            had_nothing = not self._spool.waiting
            self._changed.wait_for(lambda: self._spool.waiting or self._closing)
            self._idle = False
            if had_nothing or self._spool.waiting <= KEEPS_UP_ROWS:
                self._kept_up_at = time.monotonic()
            # A transaction a row would compete with serving for the interpreter: let a batch come together first.
            self._changed.wait_for(self._is_due, self._linger_seconds)

    def _read(self) -> list[bytes]:
        """The next batch; what altered on the disk since it was recorded is counted as lost."""
        torn_bytes, rotten = self._spool.torn_bytes, self._spool.rotten_records
        batch = self._spool.read(self._batch_rows)
        if lost := self._spool.rotten_records - rotten:
            self._metrics.log_torn_bytes.inc(self._spool.torn_bytes - torn_bytes)
            self._lose(lost, "they cannot be read any more", "oldest")
        return batch

    def _back_off(self, seconds: float) -> float:
        """Wait so long, or until it is closed; returns how long to wait the next time."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)
        return min(2 * seconds, MOST_BACKOFF_SECONDS)

    def _is_due(self) -> bool:
        return self._closing or self._flushing > 0 or self._spool.waiting >= self._batch_rows

    def _store(self, batch: Sequence[bytes]) -> bool:
        """Write until it is written; False when that is given up because the process ends."""
        backoff_seconds = self._backoff_seconds
        while True:
            try:
                new = self._write(batch)
            except DataError as error:
                return self._store_apart(batch, error)
            except Exception as error:  # whatever the log's database throws, serving goes on
                self._metrics.log_failures.inc()
                self._show_depth()
                logger.warning("writing %d predictions failed: %s", len(batch), error)
                if self._closing:
                    return False
                backoff_seconds = self._back_off(backoff_seconds)
            else:
                self._metrics.log_rows.labels("written").inc(new)
                self._metrics.log_rows.labels("repeated").inc(len(batch) - new)
                return True

    def _store_apart(self, batch: Sequence[bytes], error: DataError) -> bool:
        """One refused prediction must not take the others with it: halve the batch until it stands alone."""
        self._metrics.log_failures.inc()
        if len(batch) == 1:
            self._lose(1, f"the log refuses {batch[0][:100]!r}…: {error}", "new")
            return True
        middle = len(batch) // 2
        return self._store(batch[:middle]) and self._store(batch[middle:])

    def _lose(self, rows: int, why: str, which: str) -> None:
        if rows:
            with self._changed:
                self._lost += rows
            self._metrics.log_rows.labels("lost").inc(rows)
            logger.error("event=evergreen.predictions.lost rows=%d which=%s: %s", rows, which, why)

    def _show_depth(self) -> None:
        self._metrics.log_queue_rows.set(self._spool.waiting)
        self._metrics.log_spool_bytes.set(self._spool.size_bytes)


def _as_json(prediction: Prediction) -> bytes:
    """As `model_dump_json`, in a third of its time."""
    return orjson.dumps(vars(prediction), option=orjson.OPT_UTC_Z)
