"""From the spool to the log's table, in a process of its own: whoever shares the interpreter with answers holds them up.

`Carrier` is the server's side: `LogWriter` gives it records as it would give them to `stored`, and a process that was
killed is begun again. The other side, `python -m serving.carrier`, reads batches from its standard input, as pickles,
answers each on its standard output, and ends with the input, so with its parent however that ends. An answer that is lost
on the way is a batch tried again, and the log knows a prediction by its id.

It runs while the core has nothing else to do, since Linux leaves even a process of the lowest priority up to 3 ms of a core
that an answer just got ready to run on. Where the log falls behind, or a core is never idle, it takes its share.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any

from evergreen.errors import DataError
from evergreen.settings import Settings

if TYPE_CHECKING:
    from evergreen.wiring import Wiring

NICE = 10
"""How far it steps back where the log is behind: a tenth of a busy core is left to it, some thousand rows a second."""
STARVED_SECONDS = 2.0
"""A batch that took longer found a core that is never idle: it may have kept others from a table of SQLite's for as long,"""
HURRIED_SECONDS = 60.0
"""and for this long none waits for idle time again."""
BATCH_ROWS = 100
"""Rows at once: SQLite's tables are locked for as long as idle time takes to store them."""
END_SECONDS = 5.0
"""What an idle process gets to close its database."""


class Carrier:
    """`stored` in another process, which is begun by the first batch; `is_behind` says whether the log can wait no longer."""

    def __init__(self, settings: Settings, is_behind: Callable[[], bool]) -> None:
        self._settings = settings
        self._is_behind = is_behind
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._asking = Lock()

    @property
    def process_id(self) -> int | None:
        """None before the first batch, and after the last."""
        return None if self._process is None else self._process.pid

    def write(self, rows: Sequence[bytes]) -> int:
        """See `stored`; raises `OSError` for any failure but `DataError`, that the process ended included."""
        with self._asking:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pickle.dump((list(rows), self._is_behind()), process.stdin)
                process.stdin.flush()
                answer = pickle.load(process.stdout)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                self._end(process, END_SECONDS)
                raise OSError(f"the process that writes the log ended with {process.returncode}") from error
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    def close(self) -> None:
        """End the process: at once where it still waits for the log, which then has the batch or does not."""
        self._closed = True
        process = self._process
        if process is None:
            return
        idle = self._asking.acquire(blocking=False)
        self._end(process, END_SECONDS if idle else 0.0)
        if idle:
            self._asking.release()

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._closed:
            raise OSError("the process that writes the log was ended")
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.carrier"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            assert self._process.stdin is not None
            pickle.dump(self._settings, self._process.stdin)
        return self._process

    def _end(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        if seconds:
            with suppress(OSError):  # what was not flushed is for nobody
                process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()
        self._process = None


def stored(wiring: "Wiring", rows: Sequence[bytes]) -> int:
    """Store predictions, each as its JSON, and return how many were new.

    Raises `DataError` for what will never be taken, and whatever the database's driver raises where it does not answer.
    """
    from pydantic import ValidationError

    from evergreen.types import Prediction

    try:
        predictions = [Prediction.model_validate_json(row) for row in rows]
    except ValidationError as error:  # of a release that knew a field this one does not
        raise DataError(f"a record of the spool cannot be understood: {error}") from error
    with wiring.records() as records:
        return records.predictions.record(predictions)


def main() -> None:
    """Store what comes until nothing more does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, which drains its spool through this process
        signal.signal(number, signal.SIG_IGN)
    os.nice(max(0, NICE - os.nice(0)))
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    from evergreen.wiring import Wiring

    with suppress(EOFError, BrokenPipeError), ThreadPoolExecutor(1, initializer=_run_when_idle) as idle:
        wiring, patience = Wiring(pickle.load(asked)), Patience()
        _answer(wiring, [])  # what is imported and opened once takes a second, too much for a busy machine's idle time
        while True:
            rows, is_behind = pickle.load(asked)
            begun = time.monotonic()
            if is_behind or patience.is_over(begun):
                answer = _answer(wiring, rows)
            else:
                answer = idle.submit(_answer, wiring, rows).result()
                patience.took(time.monotonic() - begun, time.monotonic())
            pickle.dump(answer, answers)
            answers.flush()


@dataclass
class Patience:
    """Whether idle time is worth waiting for, by the monotonic clock."""

    over_until: float = -inf

    def is_over(self, now: float) -> bool:
        """Whether it was not, lately."""
        return now < self.over_until

    def took(self, seconds: float, now: float) -> None:
        """A batch that waited for idle time took so long."""
        if seconds > STARVED_SECONDS:
            self.over_until = now + HURRIED_SECONDS


def _run_when_idle() -> None:
    """This thread alone; there is no way back from it without a privilege."""
    if sys.platform == "linux":
        with suppress(OSError):  # where a sandbox forbids it, `NICE` has to do
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def _answer(wiring: "Wiring", rows: Sequence[bytes]) -> Any:
    try:
        return stored(wiring, rows)
    except DataError as error:
        return DataError(str(error))
    except Exception as error:  # a driver's own may not survive the way
        return OSError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
