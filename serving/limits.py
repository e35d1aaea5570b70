"""How much and how slowly a client may send: ASGI middleware around the body of a request."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PART_SECONDS = 10.0
"""How long the next part of a body may take."""


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
