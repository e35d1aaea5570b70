"""Caches: bounded, counted, never older than they may be, and no shortcut around the log."""

from collections.abc import Sequence
from typing import Any

import pytest
from feast import ValueType
from hypothesis import given
from hypothesis import strategies as st

from evergreen.adapters.online.view import Held, StoredView, Wanted
from serving.caches import Cache, FeatureCache, PredictionCache, Said
from serving.metrics import Metrics
from tests.serving.serving_factories import counted

HOUR = 3_600.0


def a_view(name: str = "weather", ttl_seconds: float = HOUR) -> StoredView:
    return StoredView(name, ("city",), (ValueType.STRING,), ("wind",), ttl_seconds)


class Store:
    """Holds the number of times it was read, so that one sees how old an answer is."""

    def __init__(self) -> None:
        self.reads: list[list[tuple[str, list[Any]]]] = []

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        self.reads.append([(view.name, list(keys)) for view, keys in wanted])
        number = float(len(self.reads))
        return [[None if key == ("nowhere",) else (number, (key[0],)) for key in keys] for _, keys in wanted]


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    entries=st.integers(1, 8),
    steps=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), max_size=30),
)
def test_a_cache_is_bounded_and_its_figures_add_up(entries: int, steps: list[list[int]]) -> None:
    metrics = Metrics()
    cache: Cache[int, int] = Cache(entries, metrics, "features", "m")
    kept: list[int] = []  # oldest use first: what a least-recently-used cache must hold
    hits = evicted = 0
    for keys in steps:
        found = cache.find(keys)
        assert found == [key * 2 if key in kept else None for key in keys]
        hits += len(keys) - found.count(None)
        for key in keys:
            if key in kept:
                kept.remove(key)
                kept.append(key)
        missing = [key for key, one in zip(keys, found, strict=True) if one is None]
        cache.keep((key, key * 2) for key in missing)
        for key in missing:
            if key in kept:
                kept.remove(key)
            kept.append(key)
            if len(kept) > entries:
                kept.pop(0)
                evicted += 1
        assert len(cache) == len(kept) <= entries
    labels = {"cache": "features", "model": "m"}
    assert counted(metrics, "cache_lookups_total", **labels, result="hit") == hits
    assert counted(metrics, "cache_lookups_total", **labels, result="miss") == sum(map(len, steps)) - hits
    assert counted(metrics, "cache_entries", **labels) == len(kept)
    assert counted(metrics, "cache_evictions_total", **labels) == evicted


@given(
    seconds=st.floats(0.1, 100.0),
    ttl_seconds=st.floats(0.1, 100.0),
    asked=st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(-30.0, 30.0), st.sampled_from("abc")), max_size=30),
)
def test_no_value_is_used_for_longer_than_the_file_and_the_view_allow(
    seconds: float, ttl_seconds: float, asked: list[tuple[float, float, str]]
) -> None:
    clock, store, view = Clock(), Store(), a_view(ttl_seconds=ttl_seconds)
    cache = FeatureCache(100, seconds, Metrics(), "m", clock)
    read_at: dict[float, tuple[float, float]] = {}
    as_of = 1_000.0
    for passed, moved, key in asked:
        clock.now += passed
        as_of += moved
        before = len(store.reads)
        ((held,),) = cache.read(store, [(view, [(key,)])], as_of)
        assert held is not None
        if len(store.reads) > before:
            read_at[held[0]] = clock.now, as_of
        wall, moment = read_at[held[0]]
        assert held[1] == (key,)
        assert clock.now - wall < min(seconds, ttl_seconds) or clock.now == wall
        assert abs(as_of - moment) < min(seconds, ttl_seconds) or as_of == moment


def test_only_what_is_not_there_is_read_and_everything_comes_in_order() -> None:
    store, weather, traffic = Store(), a_view(), a_view("traffic")
    cache = FeatureCache(100, 60.0, Metrics(), "m", Clock())
    cache.read(store, [(weather, [("a",), ("b",)]), (traffic, [("a",)])], 0.0)

    read = cache.read(store, [(weather, [("c",), ("b",), ("a",)]), (traffic, [("a",)])], 0.0)

    assert read == [[(2.0, ("c",)), (1.0, ("b",)), (1.0, ("a",))], [(1.0, ("a",))]]
    assert store.reads[1] == [("weather", [("c",)])]


def test_that_there_is_nothing_is_kept_too() -> None:
    store, cache = Store(), FeatureCache(100, 60.0, Metrics(), "m", Clock())

    read = [cache.read(store, [(a_view(), [("nowhere",)])], 0.0) for _ in range(2)]

    assert read == [[[None]], [[None]]]
    assert len(store.reads) == 1


def test_a_request_of_more_keys_than_the_cache_holds_is_answered_whole() -> None:
    store, cache = Store(), FeatureCache(3, 60.0, Metrics(), "m", Clock())
    keys = [(str(number),) for number in range(10)]

    read = cache.read(store, [(a_view(), keys)], 0.0)

    assert [held and held[1] for held in read[0]] == keys
    assert len(cache) == 3


@pytest.mark.parametrize("rows", [[("a", 1.0)], [("a", 1.0), ("b", None), ("a", 1.0)]])
def test_a_version_is_asked_once_for_the_same_features_and_never_answered_for(rows: list[Any]) -> None:
    cache, asked = PredictionCache(10, Metrics(), "m"), []

    def score(version: int) -> list[Said]:
        def said(some: Sequence[int]) -> list[Said]:
            asked.append((version, [rows[number] for number in some]))
            return [(version + (rows[number][1] or 0.0), None) for number in some]

        return cache.said(version, rows, said)

    first, again, other = score(1), score(1), score(2)

    assert asked == [(1, rows), (2, rows)]
    assert first == again == [(1 + (row[1] or 0.0), None) for row in rows]
    assert other == [(2 + (row[1] or 0.0), None) for row in rows]
