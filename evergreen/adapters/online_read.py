"""What an online store holds for some entities, in one bulk read: every view of a request, every row, each key once.

Feast's own read makes a protobuf message of every key and every value and then takes them apart again, which costs
several times what the store takes to answer. Here the keys are encoded by hand, as `feast.infra.key_encoding_utils`
(version 3) does, SQLite is asked one statement a view and Redis one pipeline of HMGET, and a number is unpacked from its
nine bytes. Any other store, and any key that is not a text or a 64-bit whole number as its entity has it, is read through
Feast. Values are what `OnlineResponse.to_dict` gives. Not here: whether a value may still be used (`feast.py`).
"""

import os
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache
from pathlib import Path
from threading import local
from typing import Any, Protocol

from feast import FeatureStore, ValueType
from feast.infra.online_stores.helpers import _mmh3
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from google.protobuf.timestamp_pb2 import Timestamp

Key = tuple[Any, ...]
Held = tuple[float, tuple[Any, ...]] | None
"""What a store holds of a view for one key: its event time in seconds, and a value a feature; None where nothing."""

SQLITE_VARIABLES = 30_000
"""Keys of one statement; SQLite takes 32,766 variables."""
_DOUBLE = struct.Struct("<d")
_DOUBLE_TAG = Value(double_val=1.0).SerializeToString()[:1]
_SIZE = struct.Struct("<I")
_WHOLE = struct.Struct("<q")
_TYPES: Mapping[ValueType, tuple[type, bytes]] = {
    ValueType.STRING: (str, _SIZE.pack(ValueType.STRING.value)),
    ValueType.INT64: (int, _SIZE.pack(ValueType.INT64.value)),
}


@dataclass(frozen=True)
class StoredView:
    """One stored view that a service reads."""

    name: str
    keys: tuple[str, ...]
    key_types: tuple[ValueType, ...]
    features: tuple[str, ...]
    ttl_seconds: float

    @cached_property
    def identity(self) -> str:
        """Names what is read: the view and which of its features."""
        return ":".join([self.name, *self.features])

    @cached_property
    def by_name(self) -> tuple[str, ...]:
        """The features in the order of their names, as SQLite's index has them."""
        return tuple(sorted(self.features, key=str.encode))

    @cached_property
    def places_by_name(self) -> tuple[int, ...]:
        """Where in `by_name` each feature is."""
        return tuple(map(self.by_name.index, self.features))

    @cached_property
    def _prefix(self) -> bytes:
        names = [name.encode() for name in sorted(self.keys)]
        parts = [part for name in names for part in (_SIZE.pack(ValueType.STRING.value), _SIZE.pack(len(name)), name)]
        return _SIZE.pack(len(names)) + b"".join(parts)

    @cached_property
    def _parts(self) -> tuple[tuple[int, type | None, bytes], ...]:
        """In the order of their names: each key's place, the type it has here and what says so there."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return tuple((place, *_TYPES.get(self.key_types[place], (None, b""))) for place in order)

    def encoded(self, key: Key) -> bytes:
        """The bytes a store knows an entity by. Raises `TypeError` where the key is for Feast to judge."""
        encoded = self._prefix
        for place, kind, tag in self._parts:
            value = key[place]
            if type(value) is not kind:
                raise TypeError(f"{self.keys[place]} = {value!r} is no {self.key_types[place].name} key")
            content = value.encode() if isinstance(value, str) else _WHOLE.pack(value)
            encoded += tag + _SIZE.pack(len(content)) + content
        return encoded


Wanted = tuple[StoredView, Sequence[Key]]
"""A view, and the keys to look for in it, each once."""


class OnlineStore(Protocol):
    """A bulk read of what a store holds."""

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """For each view, one entry a key in the order asked."""


def open_online_store(store: FeatureStore) -> OnlineStore:
    """The leanest read that gives what Feast would."""
    through_feast = FeastRead(store)
    versioned = store.config.registry.enable_online_feature_view_versioning
    if versioned or store.config.entity_key_serialization_version != 3:
        return through_feast
    kind = getattr(store.config.online_store, "type", None)
    if kind == "sqlite":
        path = Path(store.config.online_store.path)
        return SqliteRead(path if path.is_absolute() else Path(store.repo_path) / path, store.project, through_feast)
    if kind == "redis" and getattr(store.config.online_store, "client", "redis") == "redis":
        return RedisRead(store, through_feast)
    return through_feast


class FeastRead:
    """Through Feast's own `get_online_features`: any store, any key."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """See `OnlineStore`; event times are whole seconds here."""
        return [self._read_view(view, keys) for view, keys in wanted]

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
    """One statement a view, on a connection a thread."""

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
        connection = self._connection()
        return [self._read_view(connection, view, keys) for (view, _), keys in zip(wanted, encoded, strict=True)]

    def _read_view(self, connection: sqlite3.Connection, view: StoredView, keys: Sequence[bytes]) -> list[Held]:
        found: dict[bytes, Held] = {}
        for start in range(0, len(keys), SQLITE_VARIABLES):
            some = keys[start : start + SQLITE_VARIABLES]
            asked = self._statement(view, len(some))
            found |= _of_rows(view, connection.execute(asked, [*some, *view.features]).fetchall())
        return [found.get(key) for key in keys]

    def _statement(self, view: StoredView, keys: int) -> str:
        """In the order of the table's index, so nothing is sorted."""
        table = f"{self._project}_{view.name}".replace('"', '""')
        marks, features = ",".join("?" * keys), ",".join("?" * len(view.features))
        return (
            f'SELECT entity_key, feature_name, value, event_ts FROM "{table}" '
            f"WHERE entity_key IN ({marks}) AND feature_name IN ({features}) ORDER BY entity_key, feature_name"
        )

    def _connection(self) -> sqlite3.Connection:
        """This thread's; another one where the file was made anew."""
        try:
            inode = os.stat(self._path).st_ino  # noqa: PTH116 - a path object costs as much as the read
        except FileNotFoundError:
            inode = None
        if inode is None or getattr(self._mine, "inode", None) != inode:
            self._mine.connection = sqlite3.connect(self._path)
            self._mine.inode = self._path.stat().st_ino
        connection: sqlite3.Connection = self._mine.connection
        return connection


class RedisRead:
    """One pipeline for all views; those with the same entities lie in one hash and share a command."""

    def __init__(self, store: FeatureStore, through_feast: FeastRead) -> None:
        self._store = store
        self._project = store.project.encode()
        self._through_feast = through_feast
        self._fields: dict[StoredView, list[str | bytes]] = {}

    @cached_property
    def _client(self) -> Any:
        online = self._store._get_provider().online_store
        return online._get_client(self._store.config.online_store)

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """See `OnlineStore`."""
        commands: dict[bytes, list[str | bytes]] = {}
        asked: list[list[tuple[bytes, int]]] = []
        try:
            for view, keys in wanted:
                fields = self._fields_of(view)
                mine = []
                for key in keys:
                    name = view.encoded(key) + self._project
                    together = commands.setdefault(name, [])
                    mine.append((name, len(together)))
                    together.extend(fields)
                asked.append(mine)
        except TypeError:
            return self._through_feast.read(wanted)
        with self._client.pipeline(transaction=False) as pipe:
            for name, fields in commands.items():
                pipe.execute_command("HMGET", name, *fields)
            answers = dict(zip(commands, pipe.execute(), strict=True))
        return [
            [_of_hash(answers[name][start : start + len(view.features) + 1]) for name, start in mine]
            for (view, _), mine in zip(wanted, asked, strict=True)
        ]

    def _fields_of(self, view: StoredView) -> list[str | bytes]:
        if view not in self._fields:
            hashes = [_mmh3(f"{view.name}:{feature}") for feature in view.features]
            self._fields[view] = [f"_ts:{view.name}", *hashes]
        return self._fields[view]


def _of_rows(view: StoredView, rows: Sequence[tuple[bytes, str, bytes | None, int]]) -> dict[bytes, Held]:
    """By key, of one row a feature."""
    if not rows:
        return {}
    keys, names, contents, moments = zip(*rows, strict=True)
    count, order = len(view.features), view.by_name
    # Every key has every feature, so that each is a stretch of its own; two halves of two keys look alike by name.
    if names == order * (len(rows) // count) and keys[::count] == keys[count - 1 :: count]:
        places = view.places_by_name
        whole: dict[bytes, Held] = {}
        for start in range(0, len(rows), count):
            values = _values(contents[start : start + count])
            whole[keys[start]] = _seconds(moments[start]), tuple([values[place] for place in places])
        return whole
    places_of = {feature: place for place, feature in enumerate(view.features)}
    found: dict[bytes, tuple[int, list[bytes | None]]] = {}
    for key, name, content, moment in rows:
        found.setdefault(key, (moment, [None] * count))[1][places_of[name]] = content
    return {key: (_seconds(moment), _values(some)) for key, (moment, some) in found.items()}


def _of_hash(contents: Sequence[bytes | None]) -> Held:
    moment = contents[0]
    return None if moment is None else (_stamp(moment), _values(contents[1:]))


def _values(contents: Sequence[bytes | None]) -> tuple[Any, ...]:
    """What the stored messages hold; where all are doubles, as most rows are, unpacked at once.

    A message that begins with a double's tag is nine bytes long. So where nine bytes a message are there in all, and
    every ninth is that tag, each message is a double.
    """
    tags, doubles = _doubles(len(contents))
    try:
        together = b"".join(contents)  # type: ignore[arg-type]
    except TypeError:  # one is None
        return tuple(map(_value, contents))
    if len(together) == doubles.size and together[::9] == tags:
        return doubles.unpack(together)
    return tuple(map(_value, contents))


@cache
def _doubles(count: int) -> tuple[bytes, struct.Struct]:
    return _DOUBLE_TAG * count, struct.Struct("<" + "xd" * count)


def _value(content: bytes | None) -> Any:
    if not content:
        return None
    if len(content) == 9 and content[:1] == _DOUBLE_TAG:
        return _DOUBLE.unpack_from(content, 1)[0]
    value = Value()
    value.ParseFromString(content)
    return feast_value_type_to_python_type(value)


@lru_cache(maxsize=4_096)
def _seconds(stored: int) -> float:
    """Of a moment in Feast's SQLite tables, which hold UTC as if it were this machine's local time."""
    return datetime.fromtimestamp(int(stored)).replace(tzinfo=UTC).timestamp()  # noqa: DTZ006


@lru_cache(maxsize=4_096)  # rows of one materialization share it
def _stamp(content: bytes) -> float:
    stamp = Timestamp()
    stamp.ParseFromString(content)
    return float(stamp.seconds + stamp.nanos / 1e9)
