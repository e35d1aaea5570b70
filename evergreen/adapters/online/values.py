"""What an online store keeps of a feature → the value Feast would give.

A value is a protobuf message of its own. Doubles, which most are, are unpacked without making one. Called by
`read.py`.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from google.protobuf.timestamp_pb2 import Timestamp

_DOUBLE = struct.Struct("<d")
_DOUBLE_TAG = Value(double_val=1.0).SerializeToString()[:1]
_NOTHING = _DOUBLE_TAG + bytes(8)
"""In the place of a value that is missing."""


def values(contents: Sequence[bytes | None]) -> tuple[Any, ...]:
    """What the stored messages hold, None where there is none; where all others are doubles, as in most rows, unpacked at once.

    A message that begins with a double's tag is nine bytes long. So where nine bytes a message are there in all, and
    every ninth is that tag, each message is a double.
    """
    tags, doubles = _doubles(len(contents))
    whole = all(contents)
    filled = contents if whole else [content or _NOTHING for content in contents]
    together = b"".join(cast(Sequence[bytes], filled))
    if len(together) != doubles.size or together[::9] != tags:
        return tuple(map(_value, contents))
    unpacked = doubles.unpack(together)
    if whole:
        return unpacked
    return tuple([value if content else None for value, content in zip(unpacked, contents, strict=True)])


@lru_cache(maxsize=1_024)
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
def sqlite_seconds(stored: int) -> float:
    """Of a moment in Feast's SQLite tables, which hold UTC as if it were this machine's local time."""
    return datetime.fromtimestamp(int(stored)).replace(tzinfo=UTC).timestamp()  # noqa: DTZ006


@lru_cache(maxsize=4_096)  # rows of one materialization share it
def redis_seconds(content: bytes) -> float:
    """Of a moment in a Redis hash: a protobuf timestamp."""
    stamp = Timestamp()
    stamp.ParseFromString(content)
    return float(stamp.seconds + stamp.nanos / 1e9)
