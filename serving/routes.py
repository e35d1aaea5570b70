"""The routes: each names its collaborators and does one thing.

All but the one everybody asks, `predict`, which has a page of its own (`predict.py`). What blocks is a plain function, which
FastAPI runs in its thread pool. Errors become answers in `app.py`.
"""

import logging
from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Path, Request, Response, status
from prometheus_client import CONTENT_TYPE_LATEST

from serving.keys import require
from serving.runtime import Runtime
from serving.schemas import (
    OutcomesRequest,
    OutcomesResponse,
    Readiness,
    Refusal,
    ServedModel,
    require_known,
    require_labels,
)

logger = logging.getLogger(__name__)
router = APIRouter()


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
        "description": "No version of the model is in memory, its queue is full or the online store is away; of the latter "
        "two `Retry-After` says when to ask again",
    },
}


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
    """Every released model answers and the database is reachable; else 503 with the reasons.

    Whoever asks needs no key, so of an error that is not ours only its kind is told: its text may name hosts and users.
    """
    reasons, warnings = [], []
    try:
        releases = serving.releases()
    except Exception as error:  # whatever the database driver throws, the answer is the same
        releases = list(serving.models.released().values())
        logger.warning("the database does not answer: %s", error)
        reasons.append(f"the database does not answer: {type(error).__name__}")
    for release in releases:
        loaded, why = serving.models.serving(release.model), serving.models.reason(release.model, brief=True)
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
