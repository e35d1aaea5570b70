"""From the spool to the log's table, in a process of its own: whoever shares the interpreter with answers holds them up.

`Carrier` is the server's side: `LogWriter` gives it records as it would give them to `stored`, and a process that was
killed is begun again. The other side, `python -m serving.carrier`, reads batches from its standard input, as pickles,
answers each on its standard output, and ends with the input, so with its parent however that ends. An answer that is lost
on the way is a batch tried again, and the log knows a prediction by its id.

It steps back for answers: at a fiftieth of a busy core, which is also taken from it as soon as an answer gets ready to run
there (`_step_back`). Where the log falls behind it takes a twelfth, and where that does not help, a quarter.
"""

import ctypes
import gc
import os
import pickle
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial
from threading import Lock, get_native_id
from typing import TYPE_CHECKING, Any, Literal

import orjson

from evergreen.errors import DataError
from evergreen.settings import Settings
from evergreen.types import Prediction

if TYPE_CHECKING:
    from evergreen.wiring import Wiring

Pace = Literal["quiet", "steady", "urgent"]
"""How much a batch may take of a core that others keep busy."""
NICE: Mapping[Pace, int] = {"quiet": 17, "steady": 11, "urgent": 5}
"""A fiftieth of it, some three hundred rows a second; a twelfth; a quarter."""
SLICE_SECONDS = 0.1
"""The longest slice that Linux grants."""
BATCH_ROWS = 50
"""Rows at once: SQLite's tables are locked for as long as a quiet process takes to store them, and it may have the core so long."""
FIELDS = Prediction.model_fields.keys()
MOMENTS = ("event_timestamp", "answered_at")
END_SECONDS = 5.0
"""What the process gets to close its database."""


class Carrier:
    """`stored` in another process; `pace` is asked before each batch."""

    def __init__(self, settings: Settings, pace: Callable[[], Pace]) -> None:
        self._settings = settings
        self._pace = pace
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._asking = Lock()

    @property
    def process_id(self) -> int | None:
        """None where none runs."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Begin the process, which the first batch does else, and waits for what it imports."""
        with self._asking:
            stdin = self._running().stdin
            assert stdin is not None
            with suppress(OSError):  # it has ended again; the first batch finds that out, and the next begins another
                stdin.flush()

    def write(self, rows: Sequence[bytes]) -> int:
        """See `stored`; raises `OSError` for any failure but `DataError`, that the process ended included."""
        with self._asking:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                pickle.dump((list(rows), self._pace()), process.stdin)
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
    predictions = [_fields(row) for row in rows]
    with wiring.records() as records:
        return records.predictions.record_fields(predictions)


def main() -> None:
    """Store what comes until nothing more does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the server, which drains its spool through this process
        signal.signal(number, signal.SIG_IGN)
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    from evergreen.wiring import Wiring

    with suppress(EOFError, BrokenPipeError), ExitStack() as threads:
        wiring = Wiring(pickle.load(asked))
        _answer(wiring, [])  # imports and opens what takes seconds of a core, so before it steps back
        gc.freeze()  # no collection walks what was imported, which takes as long as storing a thousand rows
        os.nice(max(0, NICE["urgent"] - os.nice(0)))
        back = {  # each pace a thread: without a privilege there is no way to a better priority
            pace: threads.enter_context(ThreadPoolExecutor(1, initializer=partial(_step_back, NICE[pace])))
            for pace in ("quiet", "steady")
        }
        while True:
            rows, pace = pickle.load(asked)
            answer = back[pace].submit(_answer, wiring, rows).result() if pace in back else _answer(wiring, rows)
            pickle.dump(answer, answers)
            answers.flush()


def _step_back(nice: int) -> None:
    """This thread alone: a low priority, and a slice so long that whoever gets ready to run is preferred at once.

    By priority alone Linux leaves a thread up to 3 ms of a core that another waits for (EEVDF, from 6.6 on); who asks for
    shorter slices, as anybody does that asks for none, need not wait (`sched_setattr(2)`, slices from 6.12 on).
    """
    if sys.platform != "linux":
        return
    os.setpriority(os.PRIO_PROCESS, get_native_id(), max(nice, os.nice(0)))
    call = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
    if call is not None:  # there is no function for it in Python, nor in glibc before 2.41; refused, priority has to do
        slice_ns = int(SLICE_SECONDS * 1e9)
        wanted = struct.pack("IIQiIQQQ", 48, os.SCHED_OTHER, 0, os.nice(0), 0, slice_ns, 0, 0)
        ctypes.CDLL(None).syscall(ctypes.c_long(call), ctypes.c_int(0), ctypes.c_char_p(wanted), ctypes.c_uint(0))


def _fields(row: bytes) -> Mapping[str, Any]:
    """A prediction's. One that has just these is of this release, and taken at its word: the spool keeps a checksum."""
    try:
        fields = orjson.loads(row)
        if not isinstance(fields, dict) or fields.keys() != FIELDS:
            return vars(Prediction.model_validate_json(row))
        for name in MOMENTS:
            fields[name] = datetime.fromisoformat(fields[name])
    except ValueError as error:  # of a release that knew a field this one does not
        raise DataError(f"a record of the spool cannot be understood: {error}") from error
    return fields


def _answer(wiring: "Wiring", rows: Sequence[bytes]) -> Any:
    try:
        return stored(wiring, rows)
    except DataError as error:
        return DataError(str(error))
    except Exception as error:  # a driver's own may not survive the way
        return OSError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
