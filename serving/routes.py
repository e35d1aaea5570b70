"""The routes: each names its collaborators and does one thing.

`predict` runs on the event loop, which a hop to another thread for each question would cost more than its parsing, and
hands the work to `batches.py`; many rows are parsed on a thread, since they would hold up every other answer, health
checks included. Whatever else blocks is a plain function, which FastAPI runs in its thread pool. Errors become answers in
`app.py`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

import pandas as pd
from anyio import to_thread
from fastapi import APIRouter, Depends, Path, Request, Response, status
from prometheus_client import CONTENT_TYPE_LATEST

from serving.keys import require
from serving.runtime import Runtime
from serving.schemas import (
    Answer,
    OutcomesRequest,
    OutcomesResponse,
    PredictRequest,
    PredictResponse,
    Readiness,
    Refusal,
    ServedModel,
    columns_of,
    require_known,
    require_labels,
)
from serving.scoring import Question

router = APIRouter()
ROWS_ON_THE_LOOP = 16
"""A row of forty columns is parsed in some 20 microseconds."""


async def runtime_of(request: Request) -> Runtime:
    """The app's collaborators."""
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime)
    return runtime


Serving = Annotated[Runtime, Depends(runtime_of)]
ModelName = Annotated[
    str,
    # Printable and short, since a file is looked for under this name; whether there is such a model is asked later.
    Path(description="Name of a released model", examples=["flight_delay"], pattern="^[ -~]+$", max_length=64),
]
KEYS: dict[int | str, dict[str, Any]] = {
    401: {"model": Refusal, "description": "No known API key, where they are required"},
    403: {"model": Refusal, "description": "The key is for something else"},
}
BODIES: dict[int | str, dict[str, Any]] = {
    400: {
        "model": Refusal,
        "description": "The body is not text in UTF-8, or the client went away in the middle of it",
    },
    408: {"model": Refusal, "description": "The body came too slowly"},
    413: {"model": Refusal, "description": "The body is too long"},
}
REFUSALS: Mapping[int | str, dict[str, Any]] = {
    **KEYS,
    **BODIES,
    404: {"model": Refusal, "description": "Unknown model, or an unknown entity where the model's file refuses it"},
    503: {
        "model": Refusal,
        "description": "No version of the model is in memory, or its queue is full: `Retry-After` says when to ask again",
    },
}


@router.post(
    "/predict/{model_name}",
    tags=["predictions"],
    responses=dict(REFUSALS),
    response_model=PredictResponse,
    dependencies=[Depends(require("predict"))],
)
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


@router.post(
    "/outcomes/{model_name}",
    tags=["predictions"],
    responses={**KEYS, **BODIES, 404: {"model": Refusal}},
    dependencies=[Depends(require("outcomes"))],
)
def outcomes(model_name: ModelName, body: OutcomesRequest, serving: Serving) -> OutcomesResponse:
    """Keep what came true, in bulk, late or again: reporting an outcome again changes nothing, and what came of each is
    said in `kinds`."""
    require_known(body.outcomes, serving.settings.clock())
    require_labels(body.outcomes, serving.task(model_name))
    frame = pd.DataFrame(
        {
            "example_id": [outcome.example_id for outcome in body.outcomes],
            "label": [outcome.label for outcome in body.outcomes],
            "label_timestamp": pd.to_datetime([outcome.label_timestamp for outcome in body.outcomes], utc=True),
        }
    )
    counts = serving.record_outcomes(model_name, frame)
    return OutcomesResponse(
        new=counts.new,
        repeated=counts.repeated,
        unknown=counts.unknown,
        conflicting=counts.conflicting,
        kinds=counts.kinds,
    )


@router.get("/health", tags=["operations"])
async def health() -> dict[str, str]:
    """The process is alive; nothing else is looked at."""
    return {"status": "alive"}


@router.get("/ready", tags=["operations"], responses={503: {"model": Readiness}})
def ready(serving: Serving, response: Response) -> Readiness:
    """Every released model answers and the database is reachable; else 503 with the reasons."""
    reasons, warnings = [], []
    try:
        releases = serving.releases()
    except Exception as error:  # whatever the database driver throws, the answer is the same
        releases = list(serving.models.released().values())
        reasons.append(f"the database does not answer: {type(error).__name__}: {error}")
    for release in releases:
        loaded, why = serving.models.serving(release.model), serving.models.reason(release.model)
        if loaded is None:
            reasons.append(f"{release.model}: {why or 'not loaded yet'}")
        elif why is not None:
            warnings.append(f"{release.model}: revision {loaded.release.revision} serves on; {why}")
    if reasons:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return Readiness(ready=not reasons, reasons=tuple(reasons), warnings=tuple(warnings))


@router.get("/models", tags=["operations"], responses=KEYS, dependencies=[Depends(require("watch", "admin"))])
def models(serving: Serving) -> list[ServedModel]:
    """What is released, what serves here, and why not where they differ."""
    shown = []
    for name, release in sorted(serving.models.released().items()):
        loaded = serving.models.serving(name)
        shown.append(
            ServedModel(
                model=name,
                release=release,
                serving=loaded.release if loaded else None,
                in_memory=tuple(sorted(loaded.versions)) if loaded else (),
                needs=dict(loaded.needs) if loaded else {},
                inputs=dict(loaded.inputs) if loaded else {},
                error=serving.models.reason(name),
            )
        )
    return shown


@router.get(
    "/metrics",
    tags=["operations"],
    response_class=Response,
    responses=KEYS,
    dependencies=[Depends(require("watch", "admin"))],
)
def metrics(serving: Serving) -> Response:
    """Everything that is counted, for Prometheus."""
    return Response(serving.metrics.page(), media_type=CONTENT_TYPE_LATEST)
