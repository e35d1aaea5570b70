"""What an example without a name is called, and what its answer is called: ids in the order of time.

The log keeps an index of each. Ids that follow each other are written at its end, next to each other; random ones all over
it, a page of the database each (`bench/RESULTS.md`). Called by `scoring.py`.
"""

import re
from datetime import UTC, datetime
from hashlib import sha1

from uuid6 import uuid7

BEGINS_WITH_TIME = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A UUID of version 7."""


def new_example_id() -> str:
    """A new name, a UUID that begins with the moment it is given (RFC 9562, version 7)."""
    return str(uuid7())


def prediction_id(model: str, example_id: str, as_of: datetime, version: int, *, brought: bool = False) -> str:
    """The same question to the same version has the same id, so it is logged once; to bring the features is to ask another.

    A UUID of version 8: 48 bits of time, the example's own where it has a UUID of version 7, else `as_of`'s milliseconds; and
    74 of a hash of all that was asked.
    """
    moment = as_of.astimezone(UTC)
    asked = f"{model}\0{example_id}\0{moment.isoformat()}\0{version}" + "\0brought" * brought
    drawn = sha1(asked.encode(), usedforsecurity=False).hexdigest()
    if timed := BEGINS_WITH_TIME.fullmatch(example_id):
        began = timed[1]
    else:
        milliseconds = f"{int(moment.timestamp() * 1000) & 0xFFFF_FFFF_FFFF:012x}"
        began = f"{milliseconds[:8]}-{milliseconds[8:]}"
    return f"{began}-8{drawn[:3]}-{'89ab'[int(drawn[3], 16) & 3]}{drawn[4:7]}-{drawn[7:19]}"
