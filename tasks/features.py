"""Raw rows in, feature tables and online values out, as of a moment."""

from datetime import datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact

from evergreen.spec import ModelSpec
from evergreen.types import BuildReport, IngestReport
from evergreen.wiring import reported, wiring


@task(retries=2, retry_delay_seconds=5)
def refresh_features(spec: ModelSpec, as_of: datetime) -> None:
    """Bring raw and feature tables up to `as_of`; what was refused is shown on the run's page."""
    wire = wiring()
    pipeline = wire.pipeline(spec)
    where = f"the pipeline of domain {spec.data.domain!r}:"
    arrived = reported(IngestReport, pipeline.ingest(wire.settings.data, as_of), f"{where} ingest")
    built = reported(BuildReport, pipeline.build(wire.settings.data, as_of), f"{where} build")
    refused = {name: table for name, table in arrived.tables.items() if table.quarantined}
    get_run_logger().info(
        "%s rows arrived, %s refused; %s feature rows built",
        f"{sum(table.received for table in arrived.tables.values()):,}",
        f"{sum(table.quarantined for table in refused.values()):,}",
        f"{sum(built.rows.values()):,}",
    )
    if refused:
        create_table_artifact(
            key="quarantine",
            table=[{"table": name, **table.model_dump()} for name, table in refused.items()],
            description=f"Rows of {spec.data.domain} refused on arrival; the rest went on. "
            "Each day's reasons are in data/quarantine/TABLE/day=DAY.json, the rows beside them.",
        )


@task(retries=2, retry_delay_seconds=5)
def refresh_online(spec: ModelSpec, as_of: datetime) -> None:
    """Bring what the online store holds of the spec's domain up to `as_of`."""
    wiring().features.materialize(spec.data.domain, as_of)
