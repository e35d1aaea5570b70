"""`POST /predict/{model_name}`: rows in, answers out, with as little around it as FastAPI allows.

The route is declared as any other, which is what its page and its refusals are made of. But a request that is as it should
be goes a short way past FastAPI's and Starlette's layers: its body is parsed once, from bytes to rows, and its answer
leaves as bytes. Whatever there is to be said against a request is FastAPI's to say: it gets the request as it came.

Runs on the event loop, which a hop to another thread for each question would cost more than its parsing, and hands the work
to `batches.py`; many rows become columns on a thread, since they would hold up every other answer, health checks included;
on none of those that FastAPI has for plain functions, all of which a database that hangs keeps waiting.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from anyio import to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response
from pydantic import ValidationError
from starlette.datastructures import State
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.columns import columns_of
from serving.keys import is_admitted, require
from serving.routes import REFUSALS, ModelName, Serving
from serving.schemas import PredictRequest, PredictResponse
from serving.scoring import Question

ROWS_ON_THE_LOOP = 16
"""A row of forty columns becomes columns in some 20 microseconds."""
SCOPE: Literal["predict"] = "predict"
PREFIX = "/predict/"


async def predict(model_name: ModelName, body: PredictRequest, serving: Serving) -> Response:
    """Score the rows with the versions their keys are routed to, and log the answers."""
    loaded = serving.models.named(model_name)
    given = body.features == "given"
    parse = partial(
        columns_of, body.rows, loaded.inputs if given else loaded.needs, loaded.spec.serve.max_rows, may_miss=given
    )
    if len(body.rows) <= ROWS_ON_THE_LOOP:
        columns = parse()
    else:
        columns = await to_thread.run_sync(parse, limiter=serving.threads)
    ids = [row.example_id for row in body.rows]
    predictions = await serving.batches(model_name).ask(Question(loaded, columns, ids, body.as_of, given))
    said = PredictResponse.dumped(model_name, predictions)
    return Response(said, media_type="application/json")  # FastAPI would check it all again


class ShortWay:
    """In front of an app: answers a plain request to `predict` itself and passes any other on."""

    def __init__(self, app: FastAPI, route: BaseRoute, passed_on: ASGIApp) -> None:
        self._app = app
        self._route = route
        self._passed_on = passed_on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What is raised on the way is answered by the app's handlers, as from any route."""
        model_name = _asked(scope)
        if model_name is None or not self._app.state.runtime.models.is_known(model_name):
            await self._passed_on(scope, receive, send)
            return
        scope["route"], scope["path_params"] = self._route, {"model_name": model_name}
        try:
            received = await _received(receive)
            body = _understood(self._app.state, scope, received)
            answer = None if body is None else await predict(model_name, body, self._app.state.runtime)
        except Exception as error:
            scope["app"], handlers = self._app, self._app.exception_handlers
            handler: Any = next((handlers[kind] for kind in type(error).__mro__ if kind in handlers), None)
            if handler is None:
                raise
            answer = await handler(Request(scope), error)
        if answer is None:
            await self._passed_on(scope, _as_it_came(received, receive), send)
        else:
            await answer(scope, receive, send)


def add_to(app: FastAPI) -> BaseRoute:
    """Add the route, by itself: a route of a router that is included is looked for twice."""
    app.router.add_api_route(
        PREFIX + "{model_name}",
        predict,
        methods=["POST"],
        tags=["predictions"],
        responses=dict(REFUSALS),
        response_model=PredictResponse,
        dependencies=[Depends(require(SCOPE))],
    )
    return app.router.routes[-1]


def _asked(scope: Scope) -> str | None:
    """The model's name in the path; None where the request is for another route."""
    if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(PREFIX):
        return None
    return str(scope["path"][len(PREFIX) :])


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


def _understood(state: State, scope: Scope, received: Sequence[Message]) -> PredictRequest | None:
    """The body of a request that nothing is to be said against; None where FastAPI has to look at it."""
    headers = dict(reversed(scope["headers"]))  # of two with one name the first counts, as for Starlette
    if headers.get(b"content-type", b"").partition(b";")[0].strip() != b"application/json":
        return None
    if not is_admitted(state, headers.get(b"authorization", b""), SCOPE):
        return None
    if received[-1]["type"] != "http.request":
        return None
    try:
        return PredictRequest.model_validate_json(b"".join(message.get("body", b"") for message in received))
    except ValidationError:
        return None
