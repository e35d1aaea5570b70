"""Raw rows in, feature tables and online values out, as of a moment."""

from datetime import datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact

from evergreen.spec import ModelSpec
from evergreen.wiring import wiring


@task(retries=2, retry_delay_seconds=5)
def refresh_features(spec: ModelSpec, as_of: datetime) -> None:
    """Bring raw and feature tables up to `as_of`; what was refused is shown on the run's page."""
    wire = wiring()
    pipeline = wire.pipeline(spec)
    arrived = pipeline.ingest(wire.settings.data, as_of)
    built = pipeline.build(wire.settings.data, as_of)
    get_run_logger().info("%s | %s", arrived, built)
    if arrived.quarantined:
        create_table_artifact(
            key=f"quarantine-{spec.data.domain}",
            table=[fault.model_dump(mode="json") for fault in arrived.faults],
            description="Rows refused on arrival, by table and rule; the rest went on.",
        )


@task(retries=2, retry_delay_seconds=5)
def refresh_online(as_of: datetime) -> None:
    """Bring the online store up to `as_of`."""
    wiring().features.materialize(as_of)
