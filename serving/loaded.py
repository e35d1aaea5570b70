"""The versions in memory: which model answers with what, following the `releases` table.

A thread looks for changed releases. A new one is loaded and warmed up beside the old one and takes over in a single
assignment; a request that has begun keeps what it began with. When loading fails, the old one goes on and the reason is
kept. Loading itself is `runtime.py`'s; scoring is `scoring.py`'s.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Event, Lock, Thread
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from evergreen.errors import EvergreenError, UnknownModel
from evergreen.spec import ModelSpec
from evergreen.types import Release
from serving.metrics import Metrics

logger = logging.getLogger(__name__)

Kind = Literal["key", "string", "integer", "number", "timestamp", "category"]
"""What a column of a request must hold; a key is a text or a whole number, and a category too, or nothing."""


class NotLoadedError(EvergreenError):
    """The model is known, but no version of it is in memory."""


class Scoring(Protocol):
    """The part of `Predictor` that serving needs."""

    @property
    def inputs(self) -> Mapping[str, Literal["numeric", "categorical"]]:
        """Model inputs in column order."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes it gives probabilities for; empty unless it is multiclass."""

    def score(self, columns: Mapping[str, Sequence[Any] | NDArray[Any]]) -> NDArray[np.float64]:
        """(rows,) probabilities or numbers, or (rows, classes) probabilities."""


@dataclass(frozen=True)
class LoadedModel:
    """One model as it serves: its release and everything that is needed to answer under it. Swapped as a whole."""

    spec: ModelSpec
    release: Release
    versions: Mapping[int, Scoring]
    """Champion and challenger; the previous champion too while it is still in memory."""
    needs: Mapping[str, Kind]
    """Columns a request must bring: entity keys and request columns."""

    @cached_property
    def inputs(self) -> Mapping[str, Kind]:
        """Columns a request brings that knows its features itself: the inputs of every version that may answer it."""
        kinds: dict[str, Kind] = {}
        for version in self.versions.values():
            kinds |= {name: "number" if kind == "numeric" else "category" for name, kind in version.inputs.items()}
        return kinds


@dataclass(frozen=True)
class LoadFailure:
    """Why a release is not in memory."""

    release: Release
    reason: str
    attempts: int
    retry_at: float
    """On the monotonic clock."""


class LoadedModels:
    """Follows releases; `named` is what a request asks."""

    def __init__(
        self,
        read: Callable[[], Sequence[Release]],
        load: Callable[[Release, LoadedModel | None], LoadedModel],
        metrics: Metrics,
        *,
        poll_seconds: float,
        max_retry_seconds: float = 30.0,
    ) -> None:
        self._read = read
        self._load = load
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._max_retry_seconds = max_retry_seconds
        self._serving: dict[str, LoadedModel] = {}
        self._failures: dict[str, LoadFailure] = {}
        self._released: dict[str, Release] = {}
        self._refreshing = Lock()
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="release-poller", daemon=True)

    def named(self, model: str) -> LoadedModel:
        """What answers for a model now.

        Raises `UnknownModel`, naming the known ones, and `NotLoadedError`, with the reason, when it is released but
        not in memory.
        """
        loaded = self._serving.get(model)
        if loaded is not None:
            return loaded
        if model in self._released:
            raise NotLoadedError(f"model {model!r} is released but not in memory: {self.reason(model)}")
        raise UnknownModel(f"no model {model!r} is released; known models: {sorted(self._released)}")

    def is_known(self, model: str) -> bool:
        """True for every released model, in memory or not."""
        return model in self._released

    def released(self) -> Mapping[str, Release]:
        """The releases table as it was last read."""
        return dict(self._released)

    def serving(self, model: str) -> LoadedModel | None:
        """What is in memory for a model."""
        return self._serving.get(model)

    def reason(self, model: str) -> str | None:
        """Why the model's release is not the one that serves; None when it is."""
        failure = self._failures.get(model)
        if failure is not None:
            return failure.reason
        if model in self._serving:
            return None
        release = self._released.get(model)
        return "its release has no champion" if release and release.champion is None else "it is not loaded yet"

    def refresh(self) -> None:
        """Look once: load what changed, and leave what cannot be loaded as it was.

        Raises what reading the table raises; a load that fails is kept as a reason.
        """
        with self._refreshing:
            releases = {release.model: release for release in self._read()}
            self._released = releases
            for release in releases.values():
                self._follow(release)

    def start(self) -> None:
        """Start looking every `poll_seconds`."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; what is in memory keeps answering."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self.refresh()
            except Exception as error:  # the table is away: serve what is in memory
                self._metrics.poll_failures.inc()
                logger.warning("cannot read the releases: %s", error)

    def _follow(self, release: Release) -> None:
        model, current = release.model, self._serving.get(release.model)
        if release.champion is None:
            self._serving.pop(model, None)
            return
        if current is not None and current.release == release:
            self._failures.pop(model, None)
            return
        failure = self._failures.get(model)
        if failure is not None and failure.release == release and time.monotonic() < failure.retry_at:
            return
        try:
            loaded = self._load(release, current)
        except Exception as error:  # anything wrong with a new version must leave the old one serving
            self._fail(release, failure, error)
            return
        self._serving[model] = loaded
        self._failures.pop(model, None)
        self._show(loaded)

    def _fail(self, release: Release, before: LoadFailure | None, error: Exception) -> None:
        attempts = before.attempts + 1 if before is not None and before.release == release else 1
        wait_seconds = min(self._max_retry_seconds, self._poll_seconds * 2 ** min(attempts, 16))
        reason = f"revision {release.revision} cannot be loaded: {type(error).__name__}: {error}"
        self._failures[release.model] = LoadFailure(release, reason, attempts, time.monotonic() + wait_seconds)
        self._metrics.load_failures.labels(release.model).inc()
        logger.error("%s: %s", release.model, reason)

    def _show(self, loaded: LoadedModel) -> None:
        release = loaded.release
        self._metrics.swaps.labels(release.model).inc()
        self._metrics.serving_version.labels(release.model, "champion").set(release.champion or 0)
        self._metrics.serving_version.labels(release.model, "challenger").set(release.challenger or 0)
        self._metrics.challenger_share.labels(release.model).set(release.challenger_share)
        beside = f", challenger {release.challenger} at {release.challenger_share:.0%}" if release.challenger else ""
        logger.info("%s: champion %s%s", release.model, release.champion, beside)
