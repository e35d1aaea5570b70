import asyncio
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from serving.metrics import CountRequests, Metrics
from tests.serving.serving_factories import counted

SCOPE: Scope = {"type": "http", "path_params": {"model_name": "taxi"}}


def requests(metrics: Metrics, status: int) -> float:
    return counted(metrics, "requests_total", route="unmatched", model="taxi", status=str(status))


def asked(metrics: Metrics, app: Any) -> list[float]:
    """How many requests were counted as each part of the answer left."""
    seen = []

    async def send(message: Message) -> None:
        del message
        seen.append(requests(metrics, 200))

    async def receive() -> Message:
        return {"type": "http.request"}

    asyncio.run(CountRequests(app, metrics, lambda name: name == "taxi")(SCOPE, receive, send))
    return seen


def test_who_has_the_whole_answer_finds_the_request_counted() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    assert asked(metrics := Metrics(), app) == [0, 0, 1]
    assert counted(metrics, "request_seconds_count", route="unmatched", model="taxi") == 1


def test_a_request_that_breaks_off_is_counted_as_a_fault() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError(scope, receive, send)

    metrics = Metrics()

    with pytest.raises(ValueError, match="http"):
        asked(metrics, app)
    assert requests(metrics, 500) == 1
