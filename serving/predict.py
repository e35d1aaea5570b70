"""`POST /predict/{model_name}`: rows in, answers out, with as little around it as FastAPI allows.

The route is declared as any other, which is what its page and its refusals are made of. But a request that is as it should
be goes a short way past FastAPI's dependencies: its body is parsed once, from bytes to rows, and its answer leaves as
bytes. Whatever there is to be said against a request is FastAPI's to say: it gets the request as it came.

Runs on the event loop, which a hop to another thread for each question would cost more than its parsing, and hands the work
to `batches.py`; many rows become columns on a thread, since they would hold up every other answer, health checks included.
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from serving.keys import is_admitted, require
from serving.routes import REFUSALS, ModelName, Serving
from serving.runtime import Runtime
from serving.schemas import Answer, PredictRequest, PredictResponse, columns_of
from serving.scoring import Question

ROWS_ON_THE_LOOP = 16
"""A row of forty columns becomes columns in some 20 microseconds."""
SCOPE: Literal["predict"] = "predict"


async def predict(model_name: ModelName, body: PredictRequest, serving: Serving) -> Response:
    """Score the rows with the versions their keys are routed to, and log the answers."""
    loaded = serving.models.named(model_name)
    given = body.features == "given"
    parse = partial(
        columns_of, body.rows, loaded.inputs if given else loaded.needs, loaded.spec.serve.max_rows, may_miss=given
    )
    columns = parse() if len(body.rows) <= ROWS_ON_THE_LOOP else await to_thread.run_sync(parse)
    ids = [row.example_id for row in body.rows]
    predictions = await serving.batches(model_name).ask(Question(loaded, columns, ids, body.as_of, given))
    moment = predictions[0].event_timestamp
    said = PredictResponse(model=model_name, as_of=moment, predictions=[Answer.of(one) for one in predictions])
    return Response(said.model_dump_json(), media_type="application/json")  # FastAPI would check it all again


class ShortWay(APIRoute):
    """The route of `predict`: answers a plain request itself and leaves any other to FastAPI."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `APIRoute.handle`; what is raised here is answered by the app's handlers, as from any route."""
        if scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        received = await _received(receive)
        runtime: Runtime = scope["app"].state.runtime
        model_name = scope["path_params"]["model_name"]
        body = _understood(scope, received) if runtime.models.is_known(model_name) else None
        if body is None:
            await super().handle(scope, _as_it_came(received, receive), send)
            return
        answer = await predict(model_name, body, runtime)
        await answer(scope, receive, send)


def add_to(app: FastAPI) -> None:
    """Add the route, by itself: a route of a router that is included is looked for twice."""
    app.router.add_api_route(
        "/predict/{model_name}",
        predict,
        methods=["POST"],
        tags=["predictions"],
        responses=dict(REFUSALS),
        response_model=PredictResponse,
        dependencies=[Depends(require(SCOPE))],
        route_class_override=ShortWay,
    )


async def _received(receive: Receive) -> list[Message]:
    """All messages of the body; the last one says that the client went away, where it did."""
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _as_it_came(received: Sequence[Message], receive: Receive) -> Receive:
    kept = iter(received)

    async def again() -> Message:
        message = next(kept, None)
        return message if message is not None else await receive()

    return again


def _understood(scope: Scope, received: Sequence[Message]) -> PredictRequest | None:
    """The body of a request that nothing is to be said against; None where FastAPI has to look at it."""
    headers = dict(reversed(scope["headers"]))  # of two with one name the first counts, as for Starlette
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        return None
    if not is_admitted(scope["app"].state, headers.get(b"authorization", b""), SCOPE):
        return None
    if received[-1]["type"] != "http.request":
        return None
    try:
        return PredictRequest.model_validate_json(b"".join(message.get("body", b"") for message in received))
    except ValidationError:
        return None
