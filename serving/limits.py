"""How much and how slowly a client may send: ASGI middleware around a request's body, and what is looked at of what it holds.

Pydantic collects every fault there is, and FastAPI makes two dicts of each, while everybody waits: a body of 100 kB would
take a second. So what holds too much is refused as a whole, before it is validated.
"""

import asyncio
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PART_SECONDS = 10.0
"""How long the next part of a body may take."""
MOST_COLUMNS = 2_000
"""Of a row, its `example_id` among them."""
MOST_OUTCOMES = 100_000
MOST_FIELDS = 20
"""Of a request, or of an outcome: more than either has, so that a field too many is named."""


class LimitBodies:
    """413 for a body of more than `most_bytes`, and 408 where its next part does not come."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the refusals are raised where the app reads the body, so that its handlers answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received_bytes, more = 0, True

        async def limited() -> Message:
            nonlocal received_bytes, more
            if not more:
                return await receive()  # waits for the client to go away, however long that takes
            try:
                async with asyncio.timeout(PART_SECONDS):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"no part of the body came for {PART_SECONDS:g} s") from None
            more = message.get("more_body", False)
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._most_bytes:
                raise HTTPException(
                    413, f"the body is longer than {self._most_bytes:,} bytes; send it in several requests"
                )
            return message

        await self._app(scope, limited, send)


def bounded(things: Any, name: str, most: int, most_fields: int) -> Any:
    """The same things; refuses a list of more than `most`, and one thing of more than `most_fields` at its place."""
    if not isinstance(things, list):
        return things
    if len(things) > most:
        raise too_long(len(things), f"{name} in one request, {most:,} are the most; send them in several requests")
    for number, thing in enumerate(things):
        if isinstance(thing, dict) and len(thing) > most_fields:
            error = too_long(len(thing), f"fields, {most_fields:,} are the most; leave out what is not asked for")
            raise ValidationError.from_exception_data(name, [InitErrorDetails(type=error, loc=(number,), input=thing)])
    return things


def too_long(number: int, what: str) -> PydanticCustomError:
    """The fault of what is too many."""
    return PydanticCustomError("too_long", f"{number:,} {what}")
