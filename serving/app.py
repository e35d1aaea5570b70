"""The serving API: a FastAPI app around one `Runtime`.

Opens it when the server starts, drains it when the server stops, and turns errors into answers. Run it with
`python -m serving`. Routes are in `predict.py` and `routes.py`; everything that answers without HTTP is in `runtime.py`.
"""

import gc
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from evergreen.errors import (
    ConfigurationError,
    EvergreenError,
    InvalidTransition,
    OnlineStoreAway,
    ReleaseConflict,
    UnknownEntity,
    UnknownModel,
)
from evergreen.settings import Settings
from evergreen.training.run.processes import locked
from evergreen.wiring import Wiring
from serving import predict, workers
from serving.batches import Overloaded
from serving.faults import told
from serving.keys import ApiKeys, describe_keys, require_keys_beyond_loopback
from serving.limits import LimitBodies
from serving.loaded import NotLoadedError
from serving.metrics import CountRequests, Metrics
from serving.monitoring import router as monitoring_router
from serving.rollback import put_right
from serving.rollback import router as rollback_router
from serving.routes import router
from serving.runtime import Runtime

logger = logging.getLogger(__name__)

STATUS_OF: dict[type[EvergreenError], int] = {
    UnknownModel: 404,
    UnknownEntity: 404,
    NotLoadedError: 503,
    InvalidTransition: 409,
    ReleaseConflict: 409,
    Overloaded: 503,
    OnlineStoreAway: 503,
}
"""Errors a client can do something about; any other of ours is a 500 that says what happened."""
RETRY_SECONDS = 1
"""When a client that was turned away may ask again."""
SWITCH_SECONDS = 0.0002
"""How long a thread that works keeps the interpreter from one that waits: Python's 5 ms are four answers."""
GRACE_SECONDS = 10
"""How long a stopping server waits for requests that have begun."""


class Api(FastAPI):
    """FastAPI behind what looks at each request first: Starlette would put its own layers in front of any middleware.

    A tracer that hooks into FastAPI or Starlette therefore does not see the plain requests to `predict`.
    """

    def put_in_front(self, metrics: Metrics, short_way: BaseRoute, most_bytes: int) -> None:
        """Count each request, bound its body, and answer a plain one to `predict` before it comes here."""
        answered = predict.ShortWay(self, short_way, super().__call__)
        bounded = LimitBodies(answered, most_bytes)
        self._front = CountRequests(bounded, metrics, lambda name: self.state.runtime.models.is_known(name))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the class."""
        await self._front(scope, receive, send)


def create_app(settings: Settings) -> Api:
    """The app; nothing is opened before its lifespan starts."""
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        wiring = Wiring(settings)

        def open_alone() -> Runtime:
            settings.home.mkdir(parents=True, exist_ok=True)
            # Several processes that make MLflow's or Feast's fresh tables at once are in each other's way.
            with locked(settings.home / "opening.lock", on_wait=lambda: None):
                put_right(wiring)
                return Runtime.open(wiring, metrics, apart=True)

        runtime = await to_thread.run_sync(open_alone)
        app.state.wiring, app.state.runtime = wiring, runtime
        switch_seconds = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.freeze()  # a collection would walk the libraries' million objects, and a request would wait for it
        try:
            yield
        finally:
            gc.unfreeze()
            sys.setswitchinterval(switch_seconds)
            await to_thread.run_sync(runtime.close)
            wiring.engine.dispose()

    async def refuse(request: Request, error: Exception) -> Response:
        _count(request, metrics, error)
        later = {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, (Overloaded, OnlineStoreAway)) else None
        return JSONResponse({"detail": str(error)}, STATUS_OF.get(type(error), 500), later)  # type: ignore[arg-type]

    async def malformed(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        _count(request, metrics, error)
        return JSONResponse({"detail": told(error.errors())}, status_code=422)

    app = Api(
        title="Evergreen",
        summary="Predictions from the models that serve now.",
        lifespan=lifespan,
        exception_handlers={EvergreenError: refuse, RequestValidationError: malformed},
    )
    app.state.keys, app.state.keys_required = ApiKeys(settings.keys_file), settings.require_api_keys
    predict_route = predict.add_to(app)
    app.include_router(router)
    app.include_router(rollback_router)
    app.include_router(monitoring_router)
    describe_keys(app)
    app.put_in_front(metrics, predict_route, settings.max_body_bytes)
    return app


def serve(settings: Settings) -> None:
    """Run the API until it is told to stop.

    Raises `ConfigurationError` where its port is taken or anybody could ask, and `SystemExit`, with the reason logged,
    where it cannot open.
    """
    require_keys_beyond_loopback(settings)
    with _bind(settings.host, settings.serving_port) as taken, suppress(KeyboardInterrupt):
        if not settings.require_api_keys:
            logger.info("no API keys are required: whoever reaches %s may ask", settings.host)
        if settings.serving_workers > 1:
            workers.run(settings, taken, GRACE_SECONDS)
            return
        config = uvicorn.Config(
            create_app(settings),
            log_level="info",
            access_log=False,
            proxy_headers=False,  # nothing here looks at who asks
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[taken])  # raises KeyboardInterrupt again once it has shut down


def _count(request: Request, metrics: Metrics, error: Exception) -> None:
    asked = request.path_params.get("model_name", "")
    known = not asked or request.app.state.runtime.models.is_known(asked)
    metrics.errors.labels(asked if known else "unknown", type(error).__name__).inc()


def _bind(host: str, port: int) -> socket.socket:
    """Take the port ourselves: looking first and letting the server bind later would be a race."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
    except OSError as error:
        server.close()
        raise ConfigurationError(
            f"serving cannot listen on {host}:{port}: {error.strerror}. "
            "Stop what holds the port, or choose another with EVERGREEN_SERVING_PORT (and EVERGREEN_HOST)."
        ) from error
    return server
