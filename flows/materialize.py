"""Bring raw tables, feature tables and the online store up to a moment."""

from datetime import datetime

from prefect import flow

from evergreen.wiring import wiring
from tasks.features import refresh_features, refresh_online
from tasks.moment import moment


@flow(flow_run_name="materialize-{model}")
def materialize(model: str = "flight_delay", as_of: datetime | None = None) -> None:
    """Ingest what became known, rebuild the feature tables it touches, and refresh what serving reads.

    Args:
        model: Name of a file in `models/`; its domain is brought up to date.
        as_of: The moment whose knowledge may be used; empty means now.
    """
    spec = wiring().spec(model)
    at = moment(as_of)
    refresh_features(spec, at)
    refresh_online(spec, at)
