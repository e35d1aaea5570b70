"""What serving need not ask or compute twice: stored feature values for a moment, and what a version said of the same features.

Both are bounded by entries, the least recently used go first, and both are counted. Only values are kept: whether one is
fresh is judged at each answer, and an answer from a cache is logged like any other. A version's answers are kept under its
number, which names the same bytes for ever, so a swap needs no clearing; stored values are dropped after
`[serve].feature_cache_seconds`, and never used for longer than their view's TTL, so a materialization is seen that soon.
Called by `features.py` and `scoring.py`; one of each a model and process.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from evergreen.types import Cell
from serving.metrics import Metrics

if TYPE_CHECKING:
    from evergreen.adapters.online.view import Held, OnlineStore, Wanted

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
Said = tuple[float, dict[str, float] | None]
"""The score of an answer, and its probabilities by class if it has classes."""


class Cache(Generic[K, V]):
    """At most `entries` values by key; the least recently used goes first. Safe to use from several threads."""

    def __init__(self, entries: int, metrics: Metrics, name: str, model: str) -> None:
        self._entries = entries
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()
        self._hits = metrics.cache_lookups.labels(name, model, "hit")
        self._misses = metrics.cache_lookups.labels(name, model, "miss")
        self._evictions = metrics.cache_evictions.labels(name, model)
        self._size = metrics.cache_entries.labels(name, model)

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: Sequence[K], usable: Callable[[V], bool] = lambda _: True) -> list[V | None]:
        """One value a key, None where there is none that is `usable`."""
        found: list[V | None] = []
        with self._lock:
            for key in keys:
                value = self._kept.get(key)
                if value is not None and usable(value):
                    self._kept.move_to_end(key)
                    found.append(value)
                else:
                    found.append(None)
        misses = found.count(None)
        if misses:
            self._misses.inc(misses)
        if misses < len(found):
            self._hits.inc(len(found) - misses)
        return found

    def keep(self, pairs: Iterable[tuple[K, V]]) -> None:
        """Put values in, the newest in place of an older one of the same key."""
        evicted = 0
        with self._lock:
            for key, value in pairs:
                self._kept[key] = value
                self._kept.move_to_end(key)
                if len(self._kept) > self._entries:
                    self._kept.popitem(last=False)
                    evicted += 1
            size = len(self._kept)
        self._size.set(size)
        if evicted:
            self._evictions.inc(evicted)


class FeatureCache:
    """Stored values of one model's views, for `seconds` by the clock on the wall and by the moments that are asked about."""

    def __init__(
        self,
        entries: int,
        seconds: float,
        metrics: Metrics,
        model: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._cache: Cache[tuple[str, tuple[object, ...]], tuple[float, float, Held]] = Cache(
            entries, metrics, "features", model
        )

    def __len__(self) -> int:
        return len(self._cache)

    def read(self, store: "OnlineStore", wanted: "Sequence[Wanted]", as_of: float) -> "list[list[Held]]":
        """As `store.read`, which is asked only for what is not here, that nothing is held of a key included."""
        now = self._clock()
        found = [self._find(one, now, as_of) for one in wanted]
        missing = [
            (view, [key for key, one in zip(keys, here, strict=True) if one is None])
            for (view, keys), here in zip(wanted, found, strict=True)
        ]
        lacking = [one for one in missing if one[1]]
        if not lacking:
            return [[one[2] for one in here if one is not None] for here in found]
        answers = dict(zip((view.identity for view, _ in lacking), store.read(lacking), strict=True))
        # Read after `now` was taken, so no entry is used for longer than it may be.
        self._cache.keep(
            ((view.identity, key), (now, as_of, held))
            for view, keys in lacking
            for key, held in zip(keys, answers[view.identity], strict=True)
        )
        fresh = {name: iter(held) for name, held in answers.items()}
        return [
            [one[2] if one is not None else next(fresh[view.identity]) for one in here]
            for (view, _), here in zip(wanted, found, strict=True)
        ]

    def _find(self, wanted: "Wanted", now: float, as_of: float) -> "list[tuple[float, float, Held] | None]":
        view, keys = wanted
        seconds = min(self._seconds, view.ttl_seconds)

        def usable(one: "tuple[float, float, Held]") -> bool:
            # A replay asks about other moments than now: what was read for one is not used for one far from it.
            return now - one[0] < seconds and abs(as_of - one[1]) < seconds

        return self._cache.find([(view.identity, key) for key in keys], usable)


class PredictionCache:
    """What the versions of one model said of which features."""

    def __init__(self, entries: int, metrics: Metrics, model: str) -> None:
        self.entries = entries
        self._cache: Cache[tuple[int, tuple[Cell, ...]], Said] = Cache(entries, metrics, "predictions", model)

    def __len__(self) -> int:
        return len(self._cache)

    def said(
        self, version: int, rows: Sequence[tuple[Cell, ...]], score: Callable[[Sequence[int]], list[Said]]
    ) -> list[Said]:
        """One answer a row; `score` is asked for the rows, by number, that this version has not answered lately."""
        keys = [(version, row) for row in rows]
        found = self._cache.find(keys)
        missing = [number for number, said in enumerate(found) if said is None]
        if not missing:
            return [said for said in found if said is not None]
        fresh = score(missing)
        self._cache.keep(zip((keys[number] for number in missing), fresh, strict=True))
        for number, said in zip(missing, fresh, strict=True):
            found[number] = said
        return [said for said in found if said is not None]
