"""What the watch found last, for Prometheus: `/metrics/monitoring`.

Apart from `/metrics`, because it asks the database: a slow one must not hold up what is counted in memory, and where
several processes answer, one of them is enough to ask.
"""

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from evergreen.adapters.monitoring_metrics import monitoring_metrics
from serving.keys import require
from serving.rollback import Clients
from serving.routes import KEYS

router = APIRouter()


@router.get(
    "/metrics/monitoring",
    tags=["operations"],
    response_class=Response,
    responses=KEYS,
    dependencies=[Depends(require("watch", "admin"))],
)
def monitoring(wiring: Clients) -> Response:
    """Losses that came true and that were estimated, label shares, alarms, faults and the champion's age, by model."""
    with wiring.records() as records:
        page = monitoring_metrics(records.watched, records.estimates, records.releases, wiring.settings.clock())
    return Response(page, media_type=CONTENT_TYPE_LATEST)
