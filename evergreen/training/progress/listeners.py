"""Hand progress on to those who want to see it, each in a thread of its own.

A listener that is slow or away neither slows nor ends a training: what it has not taken waits in a bounded backlog, the
oldest is dropped first, and trouble is told once. Knows no vendor. Called by `tasks/progress.py`.
"""

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from evergreen.types import Progress

BACKLOG = 2_000
CLOSE_SECONDS = 60.0
"""A listener gets this long at the end; half of it for trying again."""


class Listener:
    """Tells `tell` what has come since the last time, at most every so many seconds; a context manager.

    `tell` may raise: the same rows are told again later. At the end it gets what is left, for `close_seconds` at most.
    It sees the context variables of whoever made the listener.
    """

    def __init__(
        self,
        name: str,
        tell: Callable[[Sequence[Progress]], None],
        on_trouble: Callable[[str], None],
        every_seconds: float = 2.0,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        self._name, self._tell, self._on_trouble = name, tell, on_trouble
        self._every, self._patience = every_seconds, close_seconds
        self._waiting: deque[tuple[int, Progress]] = deque(maxlen=BACKLOG)
        self._told = 0
        self._lock, self._news, self._over = threading.Lock(), threading.Event(), threading.Event()
        self._troubled = False
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._work,), name=f"progress to {name}", daemon=True)

    def __call__(self, progress: Progress) -> None:
        """Take note, at once."""
        with self._lock:
            self._told += 1
            self._waiting.append((self._told, progress))
        self._news.set()

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._news.set()
        self._thread.join(self._patience)
        if self._thread.is_alive() or self._waiting:
            self._on_trouble(f"{self._name} did not take all of the progress: {len(self._waiting)} rows are lost")

    def _work(self) -> None:
        while not self._over.is_set():
            self._news.wait()
            self._news.clear()
            self._hand_over()
            self._over.wait(self._every)
        end = time.monotonic() + self._patience / 2
        while not self._hand_over() and time.monotonic() < end:
            time.sleep(0.2)

    def _hand_over(self) -> bool:
        """Whether nothing is left."""
        with self._lock:
            rows = list(self._waiting)
        if not rows:
            return True
        try:
            self._tell([progress for _, progress in rows])
        except Exception as error:
            self._news.set()
            if not self._troubled:
                self._troubled = True
                self._on_trouble(f"{self._name} does not take the progress of this training, trying again: {error}")
            return False
        with self._lock:
            while self._waiting and self._waiting[0][0] <= rows[-1][0]:
                self._waiting.popleft()
        return not self._waiting
