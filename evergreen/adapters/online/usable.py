"""Which of what an online store holds may be used as of a moment, and the columns that makes.

Feast looks at no age online (feast-dev/feast#6821). Here a value older than its view's TTL, or from after the moment, is as
good as none. Called by `feast.py`, with what `read.py` or a cache gave.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evergreen.adapters.online.view import Held, Key, OnlineStore, StoredView, Wanted


class ValueCache(Protocol):
    """What need not be read from the store again."""

    def read(self, store: OnlineStore, wanted: Sequence[Wanted], as_of: float) -> list[list[Held]]:
        """As `store.read`, asked about a moment in seconds."""


@dataclass(frozen=True)
class Usable:
    """Of n rows and some views."""

    columns: dict[str, list[Any]]
    """Feature → n values; a missing one is None."""
    stale: list[tuple[str, ...]]
    """A row: the views whose value was missing or not usable."""
    unseen: Mapping[str, frozenset[int]]
    """Entity key → the rows for which no view with that key holds anything, however old; empty where nothing is missing."""
    oldest_seconds: dict[str, float]
    """View → age of the oldest of its values that is used; without those of which none is."""


def look_up(
    store: OnlineStore,
    views: Sequence[StoredView],
    keys: Mapping[str, Sequence[Any]],
    now: float,
    cache: ValueCache | None = None,
) -> Usable:
    """Read all views for all rows at once, each key once, as of `now` in seconds; `keys` has a column an entity key."""
    count = len(next(iter(keys.values()))) if keys else 0
    asked: dict[tuple[str, ...], list[Key]] = {}
    for view in views:
        if view.keys not in asked:
            asked[view.keys] = list(zip(*map(keys.__getitem__, view.keys), strict=True))
    distinct = asked if count == 1 else {names: list(dict.fromkeys(each)) for names, each in asked.items()}
    wanted = [(view, distinct[view.keys]) for view in views]
    answers = cache.read(store, wanted, now) if cache is not None else store.read(wanted)
    columns: dict[str, list[Any]] = {}
    stale: list[tuple[str, ...]] = [()] * count
    oldest_seconds: dict[str, float] = {}
    for (view, some), held in zip(wanted, answers, strict=True):
        each, ttl, oldest = asked[view.keys], view.ttl_seconds, now
        usable: dict[Key, tuple[Any, ...]] = {}
        for key, one in zip(some, held, strict=True):
            if one is not None and 0 < one[0] <= now <= one[0] + ttl:
                usable[key] = one[1]
                if one[0] < oldest:
                    oldest = one[0]
        if usable:
            oldest_seconds[view.name] = now - oldest
        if len(usable) < len(some):
            nothing = (None,) * len(view.features)
            for row, key in enumerate(each):
                if key not in usable:
                    stale[row] += (view.name,)
            usable = {key: usable.get(key, nothing) for key in some}
        cells = zip(*map(usable.__getitem__, each), strict=True) if count else [()] * len(view.features)
        columns.update(zip(view.features, map(list, cells), strict=True))
    missing = any(None in held for held in answers)
    return Usable(columns, stale, _unseen(wanted, answers, asked) if missing else {}, oldest_seconds)


def _unseen(
    wanted: Sequence[Wanted], answers: Sequence[Sequence[Held]], asked: Mapping[tuple[str, ...], Sequence[Key]]
) -> dict[str, frozenset[int]]:
    unseen: dict[str, frozenset[int]] = {}
    for (view, some), held in zip(wanted, answers, strict=True):
        never = {key for key, one in zip(some, held, strict=True) if one is None}
        nowhere = frozenset(row for row, key in enumerate(asked[view.keys]) if key in never)
        for name in view.keys:
            unseen[name] = unseen[name] & nowhere if name in unseen else nowhere
    return unseen
