"""The versions in memory: which model answers with what, following the `releases` table.

A thread looks for changed releases. One whose versions are in memory takes over at once; any other is loaded and warmed up
beside the old one, on a thread of its model's own, and takes over in a single assignment; a request that has begun keeps
what it began with. When loading fails, the old one goes on and the reason is kept. The previous champion is brought into
memory last, so that a roll-back needs neither network nor disk. Loading itself is `runtime.py`'s; scoring is `scoring.py`'s.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
"""What a column of a request must hold; a key is a text or a whole number (one whose entity has whole numbers is an integer), and
a category too, or nothing."""
CLOSE_SECONDS = 10.0
"""How long a closing process waits for looks and loads that have begun: no database or registry holds anybody up longer."""


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
    """Champion and challenger, and the previous champion as soon as it is in memory."""
    needs: Mapping[str, Kind]
    """Columns a request must bring: entity keys and request columns."""

    @cached_property
    def inputs(self) -> Mapping[str, Kind]:
        """Columns a request brings that knows its features itself: the inputs of both versions that may answer it.

        Where they take a column for different things, it is what the champion takes it for.
        """
        kinds: dict[str, Kind] = {}
        for number in (self.release.challenger, self.release.champion):
            if number is not None:
                inputs = self.versions[number].inputs
                kinds |= {name: "number" if kind == "numeric" else "category" for name, kind in inputs.items()}
        return kinds


@dataclass(frozen=True)
class LoadFailure:
    """Why a release, or its previous champion, is not in memory."""

    release: Release
    reason: str
    brief: str
    """The same, without the text of an error that is not ours."""
    attempts: int
    retry_at: float
    """On the monotonic clock."""


class LoadedModels:
    """Follows releases; `named` is what a request asks."""

    def __init__(
        self,
        read: Callable[[], Sequence[Release]],
        load: Callable[[Release, LoadedModel | None], LoadedModel],
        fetch: Callable[[str, int], Scoring],
        metrics: Metrics,
        *,
        poll_seconds: float,
        max_retry_seconds: float = 30.0,
    ) -> None:
        self._read = read
        self._load = load
        self._fetch = fetch
        self._metrics = metrics
        self._poll_seconds = poll_seconds
        self._max_retry_seconds = max_retry_seconds
        self._serving: dict[str, LoadedModel] = {}
        self._failures: dict[str, LoadFailure] = {}
        self._without_previous: dict[str, LoadFailure] = {}
        self._released: dict[str, Release] = {}
        self._loading: dict[str, Thread] = {}
        self._looking = Lock()
        self._swapping = Lock()
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

    def reason(self, model: str, *, brief: bool = False) -> str | None:
        """Why the model's release is not the one that serves; None when it is. Of a foreign error `brief` has the kind alone."""
        failure = self._failures.get(model)
        if failure is not None:
            return failure.brief if brief else failure.reason
        if model in self._serving:
            return None
        release = self._released.get(model)
        return "its release has no champion" if release and release.champion is None else "it is not loaded yet"

    def refresh(self) -> None:
        """Look once, and wait until what changed is loaded; what cannot be loaded is left as it was.

        Raises what reading the table raises; a load that fails is kept as a reason.
        """
        for loading in self._look():
            loading.join()

    def start(self) -> None:
        """Start looking every `poll_seconds`."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; what is in memory keeps answering."""
        self._stopping.set()
        until = time.monotonic() + CLOSE_SECONDS
        for thread in (self._thread, *self._loading.values()):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            try:
                self._look()
                self._hold_previous()
            except Exception as error:  # the table is away: serve what is in memory
                self._metrics.poll_failures.inc()
                logger.warning("cannot follow the releases: %s", error)

    def _look(self) -> list[Thread]:
        """Follow every release as far as that takes no loading; returns who loads for the rest."""
        with self._looking:
            self._released = {release.model: release for release in self._read()}
            loading = [self._follow(release) for release in self._released.values()]
        return [thread for thread in loading if thread is not None]

    def _follow(self, release: Release) -> Thread | None:
        model, current = release.model, self._serving.get(release.model)
        if release.champion is None:
            with self._swapping:
                self._serving.pop(model, None)
            return None
        if current is not None and current.release == release:
            self._failures.pop(model, None)
            return None
        if _is_put_off(self._failures.get(model), release):
            return None
        if current is not None and {release.champion, release.challenger} - {None} <= current.versions.keys():
            self._take(release)  # beside whatever is being loaded: a roll-back waits for nobody
            return None
        return self._beside(model, partial(self._take, release))

    def _hold_previous(self) -> None:
        """Bring previous champions into memory that are not there, as after a restart."""
        with self._looking:
            for model, loaded in list(self._serving.items()):
                release, previous = loaded.release, loaded.release.previous
                if previous is None or previous in loaded.versions:
                    continue
                if not _is_put_off(self._without_previous.get(model), release):
                    self._beside(model, partial(self._fetch_previous, release, previous))

    def _beside(self, model: str, load: Callable[[], None]) -> Thread:
        """The one thread that loads for a model: a new one, or the one that does already, and then nothing else begins."""
        thread = self._loading.get(model)
        if thread is None or not thread.is_alive():
            thread = self._loading[model] = Thread(target=load, name=f"loads-{model}", daemon=True)
            thread.start()
        return thread

    def _take(self, release: Release) -> None:
        """Load a release and let it serve, unless a later one does meanwhile."""
        model = release.model
        try:
            loaded = self._load(release, self._serving.get(model))
        except Exception as error:  # anything wrong with a new version must leave the old one serving
            what = f"revision {release.revision} cannot be loaded"
            failure = self._failures[model] = self._failure(self._failures.get(model), release, what, error)
            self._metrics.load_failures.labels(model).inc()
            logger.error("%s: %s", model, failure.reason)
            return
        with self._swapping:
            newest, current = self._released.get(model), self._serving.get(model)
            is_later = current is None or current.release.revision < release.revision
            if newest == release or (is_later and newest is not None and newest.champion is not None):
                self._serving[model] = loaded
                self._failures.pop(model, None)
                self._show(loaded)

    def _fetch_previous(self, release: Release, number: int) -> None:
        """Add a release's previous champion to what is in memory; without it everything serves all the same."""
        model = release.model
        try:
            version = self._fetch(model, number)
        except Exception as error:  # as above
            what = f"the previous champion, version {number}, is not in memory"
            failure = self._failure(self._without_previous.get(model), release, what, error)
            self._without_previous[model] = failure
            if failure.attempts == 1:
                logger.warning(
                    "%s: %s; a roll-back would have to load it. It is asked for again.", model, failure.reason
                )
            return
        with self._swapping:
            loaded = self._serving.get(model)
            if loaded is not None and loaded.release.previous == number:
                self._serving[model] = replace(loaded, versions={**loaded.versions, number: version})

    def _failure(self, before: LoadFailure | None, release: Release, what: str, error: Exception) -> LoadFailure:
        """One more, and when it is tried again: twice as long after each."""
        attempts = before.attempts + 1 if before is not None and before.release == release else 1
        wait_seconds = min(self._max_retry_seconds, self._poll_seconds * 2 ** min(attempts, 16))
        brief = f"{what}: {type(error).__name__}"
        reason = f"{brief}: {error}"
        told = reason if isinstance(error, EvergreenError) else brief
        return LoadFailure(release, reason, told, attempts, time.monotonic() + wait_seconds)

    def _show(self, loaded: LoadedModel) -> None:
        release = loaded.release
        self._metrics.swaps.labels(release.model).inc()
        self._metrics.serving_version.labels(release.model, "champion").set(release.champion or 0)
        self._metrics.serving_version.labels(release.model, "challenger").set(release.challenger or 0)
        self._metrics.challenger_share.labels(release.model).set(release.challenger_share)
        beside = f", challenger {release.challenger} at {release.challenger_share:.0%}" if release.challenger else ""
        logger.info("%s: champion %s%s", release.model, release.champion, beside)


def _is_put_off(failure: LoadFailure | None, release: Release) -> bool:
    return failure is not None and failure.release == release and time.monotonic() < failure.retry_at
