"""What an example without a name is called, and what its answer is called: ids in the order of time.

The log keeps an index of each. Ids that follow each other are written at its end, next to each other; random ones all over
it, a page of the database each (`bench/RESULTS.md`). Called by `scoring.py`, and by `tasks/parity.py`.
"""

import re
from datetime import UTC, datetime
from hashlib import sha1
from uuid import NAMESPACE_URL, uuid5

from uuid6 import uuid7

BEGINS_WITH_TIME = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
"""A UUID of version 7."""
BEFORE = uuid5(NAMESPACE_URL, "evergreen/predictions")
"""What ids of answers were made under before they were in the order of time."""


def new_example_id() -> str:
    """A new name, a UUID that begins with the moment it is given (RFC 9562, version 7)."""
    return str(uuid7())


def prediction_id(model: str, example_id: str, as_of: datetime, version: int, *, brought: bool = False) -> str:
    """The same question to the same version has the same id, so it is logged once; to bring the features is to ask another.

    A UUID of version 8: 48 bits of time, the example's own where it has a UUID of version 7, else `as_of`'s milliseconds; and
    74 of a hash of all that was asked.
    """
    drawn = sha1(_asked(model, example_id, as_of, version, brought).encode(), usedforsecurity=False).hexdigest()
    if timed := BEGINS_WITH_TIME.fullmatch(example_id):
        began = timed[1]
    else:
        milliseconds = f"{int(as_of.timestamp() * 1000) & 0xFFFF_FFFF_FFFF:012x}"
        began = f"{milliseconds[:8]}-{milliseconds[8:]}"
    return f"{began}-8{drawn[:3]}-{'89ab'[int(drawn[3], 16) & 3]}{drawn[4:7]}-{drawn[7:19]}"


def is_looked_up(logged_id: str, model: str, example_id: str, as_of: datetime, version: int) -> bool:
    """Whether the answer of this id is of features that were looked up, not brought.

    What was logged before ids were in the order of time has one of version 5.
    """
    if logged_id[14:15] == "5":
        return logged_id == str(uuid5(BEFORE, _asked(model, example_id, as_of, version, False)))
    return logged_id == prediction_id(model, example_id, as_of, version)


def _asked(model: str, example_id: str, as_of: datetime, version: int, brought: bool) -> str:
    return f"{model}\0{example_id}\0{as_of.astimezone(UTC).isoformat()}\0{version}" + "\0brought" * brought
