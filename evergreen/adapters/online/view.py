"""A stored view as an online read sees it: which features, by which keys, and the bytes a store knows an entity by.

The bytes are those of `feast.infra.key_encoding_utils`, version 3. Called by `feast.py`, which makes the views, and
`read.py`, which reads them.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from feast import ValueType

Key = tuple[Any, ...]
Held = tuple[float, tuple[Any, ...]] | None
"""What a store holds of a view for one key: its event time in seconds, and a value a feature; None where nothing."""

_SIZE = struct.Struct("<I")
_WHOLE = struct.Struct("<q")
_TYPES: Mapping[ValueType, tuple[type, bytes]] = {
    ValueType.STRING: (str, _SIZE.pack(ValueType.STRING.value)),
    ValueType.INT64: (int, _SIZE.pack(ValueType.INT64.value)),
}


@dataclass(frozen=True, eq=False)
class StoredView:
    """One stored view that a service reads; itself alone, so that it is found quickly among others."""

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
        """For each view, one entry a key in the order asked. Raises `OnlineStoreAway` where the store does not answer."""
