"""The routes: each names its collaborators and does one thing.

Handlers are plain functions, so FastAPI runs them in its thread pool: lookup and scoring block, and on the event loop
one batch of a hundred rows would hold up every other answer, health checks included. Errors become answers in `app.py`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import pandas as pd
from fastapi import APIRouter, Depends, Path, Request, Response, status
from prometheus_client import CONTENT_TYPE_LATEST

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

router = APIRouter()


def runtime_of(request: Request) -> Runtime:
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
REFUSALS: Mapping[int | str, dict[str, Any]] = {
    404: {"model": Refusal, "description": "Unknown model, or an unknown entity where the model's file refuses it"},
    503: {"model": Refusal, "description": "The model is released but no version of it is in memory"},
}


@router.post("/predict/{model_name}", tags=["predictions"], responses=dict(REFUSALS))
def predict(model_name: ModelName, body: PredictRequest, serving: Serving) -> PredictResponse:
    """Score the rows with the versions their keys are routed to, and log the answers."""
    loaded = serving.models.named(model_name)
    columns = columns_of(body.rows, loaded.needs, loaded.spec.serve.max_rows)
    as_of = body.as_of or serving.settings.clock()
    ids = [row.example_id for row in body.rows]
    predictions = serving.scorer.answer(loaded, columns, as_of=as_of, example_ids=ids)
    return PredictResponse(model=model_name, as_of=as_of, predictions=[Answer.of(one) for one in predictions])


@router.post("/outcomes/{model_name}", tags=["predictions"], responses={404: {"model": Refusal}})
def outcomes(model_name: ModelName, body: OutcomesRequest, serving: Serving) -> OutcomesResponse:
    """Keep what came true; reporting it again changes nothing."""
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
    return OutcomesResponse(new=counts.new, repeated=counts.repeated, unknown=counts.unknown)


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


@router.get("/models", tags=["operations"])
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
                error=serving.models.reason(name),
            )
        )
    return shown


@router.get("/metrics", tags=["operations"], response_class=Response)
def metrics(serving: Serving) -> Response:
    """Everything that is counted, for Prometheus."""
    return Response(serving.metrics.page(), media_type=CONTENT_TYPE_LATEST)
