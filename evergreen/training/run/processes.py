"""Processes that leave nothing behind: they die with their parent, and a lock dies with them.

Knows nothing of training. Called by `launch.py` on both of its sides and by every rank.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ERROR_MARK = "evergreen-error "
"""Starts the line by which a child says which error its parent should raise."""
PROGRESS_MARK = "evergreen-progress "
"""Starts the line by which rank 0 says how far it is; a `Progress` as JSON follows."""
REFUSED = 3
"""Status of a process that said why it ends: to start it again would end the same way."""
_PR_SET_PDEATHSIG = 1
_PATIENCE_SECONDS = 8.0


def tell(line: str) -> None:
    """Print a line in one write, so that those of processes that share the pipe do not end up inside each other.

    Where nobody listens any more it is lost: a process that is told to stop has better things to do than to fail at this.
    """
    with contextlib.suppress(BrokenPipeError):
        print(f"{line}\n", end="", flush=True)


def error_line(error: Exception) -> str:
    """What a child says so that its parent raises this error."""
    return ERROR_MARK + json.dumps({"kind": type(error).__name__, "message": str(error)})


def die_with_parent(parent: int) -> None:
    """Ask Linux to send this process SIGTERM when its parent ends, however it ends; elsewhere this does nothing.

    `parent` is the process that should be there: if it ended before the request was in place, this process ends too.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields its descriptor, and `on_wait` is told when another process has it.

    A child that inherits the descriptor holds the lock too: it is free when the last of them has ended, killed or not.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def stop_session(process: subprocess.Popen[str]) -> None:
    """End a process that leads its own session and all that it started: politely, then not."""
    if process.poll() is not None:
        return
    for polite in (True, False):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM if polite else signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_SECONDS)
            break
