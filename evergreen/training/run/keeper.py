"""When is the state of a run saved, and when does the run end early?

Time passes and notices arrive differently on every rank, so each says its wishes before a step, the sum of all comes
with the step's loss, and then all do the same. Called by `loop.fit` and `worker.py`.
"""

import math
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from evergreen.errors import TrainingStopped
from evergreen.training.run.checkpoint import Checkpoints
from evergreen.training.run.parallel import Place

if TYPE_CHECKING:
    from evergreen.training.loop import TrainState

GRACE_SECONDS = 5
"""From a SIGTERM to the end of a rank, however that comes about."""


_LOOK_SECONDS = 0.5
"""At least this long between two looks for a note to stop."""


class Notice:
    """SIGTERM as a wish to stop after the step that is being made; a rank that hangs is ended by the kernel in time.

    Where the signal reaches only the launcher, as on a cluster, that leaves a note in the job's folder for all ranks.
    """

    def __init__(self, note: Path) -> None:
        self._note, self._signalled, self._looked_at = note, False, -math.inf
        if threading.current_thread() is threading.main_thread():  # under Ray the function runs in a thread of its own
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, self._on_signal)

    @property
    def given(self) -> bool:
        """Has this rank, or its launcher, been told to stop?"""
        if not self._signalled and time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = time.monotonic()
            self._signalled = self._note.exists()
        return self._signalled

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self._signalled:
            self._signalled = True
            signal.alarm(GRACE_SECONDS)


class Keeper:
    """Saves when it is time, at the last step, and when told to stop."""

    def __init__(self, checkpoints: Checkpoints, seconds: float, steps: int, place: Place, notice: Notice) -> None:
        self._checkpoints, self._seconds, self._steps, self._place = checkpoints, seconds, steps, place
        self._notice = notice
        self._saved_at = time.monotonic()

    def wishes(self) -> tuple[float, float]:
        """Of this rank: (save, stop), each 0 or 1. Rank 0's clock alone counts, and a disk that is busy is left alone."""
        if self._checkpoints.busy:
            self._saved_at = time.monotonic()
        due = time.monotonic() - self._saved_at >= self._seconds and not self._checkpoints.busy
        return float(due and self._place.leads), float(self._notice.given)

    def after_step(self, state: "TrainState", *, save: bool, stop: bool) -> None:
        """Save if any rank wished so, or at the end; raises `TrainingStopped` once a stop is safe on the disk."""
        last = state.step == self._steps
        if not (save or stop or last):
            return
        self._checkpoints.save(state.step, state.tensors(), state.numbers())
        self._saved_at = time.monotonic()
        if stop or last:
            self._checkpoints.wait()
        if stop and not last:
            raise TrainingStopped(
                f"told to stop (SIGTERM) and saved at step {state.step}/{self._steps}. Run it again: it goes on there."
            )
