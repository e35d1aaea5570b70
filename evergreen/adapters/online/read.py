"""What an online store holds for some entities, in one bulk read: every view of a request, every row, each key once.

Feast's own read makes a protobuf message of every key and every value and then takes them apart again, which costs
several times what the store takes to answer. Here the keys are encoded by hand (`view.py`), SQLite is asked one
statement for all views with few keys and Redis one pipeline of HMGET (`redis.py`), and a number is unpacked from its nine bytes
(`values.py`). Any other store, and any key that is not a text or a 64-bit whole number as its entity has it, is read
through Feast. Values are what `OnlineResponse.to_dict` gives. Not here: whether a value may still be used (`feast.py`).
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from threading import local

from feast import FeatureStore

from evergreen.adapters.online.values import sqlite_seconds, values
from evergreen.adapters.online.view import Held, Key, OnlineStore, StoredView, Wanted
from evergreen.errors import OnlineStoreAway

SQLITE_VARIABLES = 30_000
"""Keys of a view in one statement; SQLite takes 32,766 variables."""
SQLITE_MANY = 20
"""From so many keys of a view on, a statement of its own takes less time than to fill its rows up to the widest view's."""
SQLITE_FEATURES = 1_900
"""Of one view; SQLite gives 2,000 columns."""
BUSY_SECONDS = 0.2
"""A SQLite that another process has locked for so long is away."""
AWAY: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, sqlite3.OperationalError)
"""What a store raises that does not answer; a vendor's own are added."""


def open_online_store(store: FeatureStore) -> OnlineStore:
    """The leanest read that gives what Feast would."""
    kind = getattr(store.config.online_store, "type", None)
    if kind == "redis":
        from evergreen.adapters.online.redis import REDIS_AWAY, RedisRead  # its client is an extra

        through_feast = FeastRead(store, REDIS_AWAY)
    else:
        through_feast = FeastRead(store)
    versioned = store.config.registry.enable_online_feature_view_versioning
    if versioned or store.config.entity_key_serialization_version != 3:
        return through_feast
    if kind == "sqlite":
        return SqliteRead(_sqlite_path(store), store.project, through_feast)
    if kind == "redis" and getattr(store.config.online_store, "client", "redis") == "redis":
        return RedisRead(store, through_feast)
    return through_feast


def prepare(store: FeatureStore) -> None:
    """Once its tables are there: a SQLite is read while it is written to, which stays in the file.

    Where another process has it locked just now, that is left to whoever opens the store next.
    """
    if getattr(store.config.online_store, "type", None) == "sqlite":
        with (
            suppress(sqlite3.OperationalError),
            closing(sqlite3.connect(_sqlite_path(store), BUSY_SECONDS)) as database,
        ):
            database.execute("PRAGMA journal_mode = WAL")


class FeastRead:
    """Through Feast's own `get_online_features`: any store, any key."""

    def __init__(self, store: FeatureStore, away: tuple[type[Exception], ...] = AWAY) -> None:
        """`away` is what the store's client raises where it gets no answer."""
        self._store = store
        self._away = away

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """See `OnlineStore`; event times are whole seconds here."""
        try:
            return [self._read_view(view, keys) for view, keys in wanted]
        except self._away as error:
            raise OnlineStoreAway(f"the online store does not answer: {error}") from error

    def _read_view(self, view: StoredView, keys: Sequence[Key]) -> list[Held]:
        if not keys:
            return []
        columns = {name: [key[place] for key in keys] for place, name in enumerate(view.keys)}
        refs = [f"{view.name}:{feature}" for feature in view.features]
        answer = self._store.get_online_features(refs, columns).to_dict(include_event_timestamps=True)
        times = answer[f"{view.features[0]}__ts"]
        rows = zip(*(answer[feature] for feature in view.features), strict=True)
        return [(float(time), values) if time > 0 else None for time, values in zip(times, rows, strict=True)]


class SqliteRead:
    """One statement for all views with few keys and one for each other, on a connection a thread."""

    def __init__(self, path: Path, project: str, through_feast: FeastRead) -> None:
        self._path = path
        self._project = project
        self._through_feast = through_feast
        self._mine = local()

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """See `OnlineStore`."""
        try:
            encoded = [[view.encoded(key) for key in keys] for view, keys in wanted]
        except TypeError:
            return self._through_feast.read(wanted)
        if any(len(view.features) > SQLITE_FEATURES for view, _ in wanted):
            return self._through_feast.read(wanted)
        try:
            return self._read(wanted, encoded)
        except sqlite3.OperationalError as error:
            raise OnlineStoreAway(f"the online store, SQLite, does not answer: {error}") from error

    def _read(self, wanted: Sequence[Wanted], encoded: Sequence[Sequence[bytes]]) -> list[list[Held]]:
        connection = self._connection()
        found: list[dict[bytes, Held]] = [{} for _ in wanted]
        for parts in _statements(encoded):
            text = _statement(self._project, tuple([(place, wanted[place][0], len(some)) for place, some in parts]))
            read = connection.execute(text, [key for _, some in parts for key in some])
            for place, rows in groupby(read, itemgetter(0)):
                width, some = len(wanted[place][0].features), list(rows)
                cells = values([cell for row in some for cell in row[3 : 3 + width]])
                for number, row in enumerate(some):
                    found[place][row[1]] = sqlite_seconds(row[2]), cells[number * width : (number + 1) * width]
        return [list(map(held.get, keys)) for held, keys in zip(found, encoded, strict=True)]

    def _connection(self) -> sqlite3.Connection:
        """This thread's; another one where the file was made anew."""
        try:
            inode = os.stat(self._path).st_ino  # noqa: PTH116 - a path object costs as much as the read
        except FileNotFoundError:
            inode = None
        if inode is None or getattr(self._mine, "inode", None) != inode:
            self._mine.connection = sqlite3.connect(self._path, BUSY_SECONDS)
            self._mine.inode = self._path.stat().st_ino
        connection: sqlite3.Connection = self._mine.connection
        return connection


def _sqlite_path(store: FeatureStore) -> Path:
    path = Path(store.config.online_store.path)
    return path if path.is_absolute() else Path(store.repo_path) / path


def _statements(encoded: Sequence[Sequence[bytes]]) -> Iterator[list[tuple[int, Sequence[bytes]]]]:
    """Which keys of which views, by place, each statement asks for: all views with few keys are one's."""
    few: list[tuple[int, Sequence[bytes]]] = []
    for place, keys in enumerate(encoded):
        if len(keys) >= SQLITE_MANY:
            for start in range(0, len(keys), SQLITE_VARIABLES):
                yield [(place, keys[start : start + SQLITE_VARIABLES])]
        elif keys:
            few.append((place, keys))
    if few:
        yield few


@lru_cache(maxsize=256)
def _statement(project: str, parts: tuple[tuple[int, StoredView, int], ...]) -> str:
    """Of places, views and how many keys: a row a key that is there, with its place, its moment and its features in order."""
    width = max(len(view.features) for _, view, _ in parts)
    return " UNION ALL ".join(
        f"SELECT {place}, entity_key, event_ts, "  # one of the key's rows', which were written together
        + ", ".join(f"max(value) FILTER (WHERE feature_name = {_text(feature)})" for feature in view.features)
        + ", NULL" * (width - len(view.features))
        + f" FROM {_named(f'{project}_{view.name}')} WHERE entity_key IN ({','.join('?' * count)}) GROUP BY entity_key"
        for place, view, count in parts
    )


def _named(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(content: str) -> str:
    return "'" + content.replace("'", "''") + "'"
