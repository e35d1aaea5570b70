"""How a 422 repeats what it refuses: in JSON that can be encoded, and short, whatever a client sent.

A request may hold what an answer cannot: NaN, half a surrogate pair, a number of a thousand digits, a list a thousand
deep. Pure; used by `app.py`, and by what finds faults.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

MOST_FAULTS = 100
MOST_CHARACTERS = 200
MOST_ITEMS = 20
MOST_LEVELS = 3
CUT = "…"


def fault(kind: str, where: tuple[str | int, ...], message: str, given: Any) -> dict[str, Any]:
    """One in a request's body, as FastAPI's own are."""
    return {"type": kind, "loc": ("body", *where), "msg": message, "input": given}


def told(faults: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first `MOST_FAULTS`, each with its type, its place, its message and what was given there."""
    return [
        {
            "type": fault["type"],
            "loc": [echoed(step) for step in fault["loc"]],
            "msg": _encodable(fault["msg"]),
            "input": echoed(fault.get("input")),
        }
        | ({"ctx": echoed(fault["ctx"])} if "ctx" in fault else {})
        for fault in faults[:MOST_FAULTS]
    ]


def echoed(given: Any, levels: int = MOST_LEVELS) -> Any:
    """The same value where JSON can hold it and it is short; else a text or a part that stands for it."""
    match given:
        case None | bool():
            return given
        case int():
            # A huge number has no decimal text in Python, and a browser reads no more than a float holds.
            return given if given.bit_length() < 64 else f"a whole number of {given.bit_length()} bits"
        case float():
            return given if math.isfinite(given) else str(given)
        case str():
            return _encodable(given if len(given) <= MOST_CHARACTERS else given[:MOST_CHARACTERS] + CUT)
        case Mapping() | list() | tuple() if not levels:
            return CUT
        case Mapping():
            return {
                echoed(str(name)): echoed(value, levels - 1) for name, value in islice(given.items(), MOST_ITEMS)
            } | ({CUT: CUT} if len(given) > MOST_ITEMS else {})
        case list() | tuple():
            return [echoed(value, levels - 1) for value in given[:MOST_ITEMS]] + [CUT] * (len(given) > MOST_ITEMS)
        case _:
            return echoed(str(given))


def _encodable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
