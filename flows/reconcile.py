"""Put right what a dead process or a hand left between the journals of releases and what MLflow shows."""

from prefect import flow

from evergreen.types import Finding
from tasks.release import put_right


@flow
def reconcile() -> tuple[Finding, ...]:
    """Repair every model's release and aliases; returns what was found."""
    return put_right()
