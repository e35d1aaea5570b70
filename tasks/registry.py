"""Write a candidate, its verdict and its lineage into the registry."""

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact

from evergreen.spec import ModelSpec
from evergreen.types import Cause, Evaluation, GateDecision, ModelVersion, TrainedModel
from evergreen.wiring import wiring
from tasks.progress import flow_tags


@task(retries=2, retry_delay_seconds=5)
def register(
    spec: ModelSpec,
    candidate: TrainedModel,
    evaluation: Evaluation,
    champion: Evaluation | None,
    decision: GateDecision,
    cause: Cause,
) -> ModelVersion:
    """Register the version, refused ones too; the same candidate again is the same version."""
    registry = wiring().registry
    version = registry.register(candidate, evaluation, champion, decision, cause, spec, flow_tags())
    create_link_artifact(
        key="mlflow-run",
        link=registry.run_url(version.run_id),
        link_text=f"{spec.name} version {version.version} in MLflow",
    )
    get_run_logger().info(
        "%s is version %d: %s", candidate.digest[:19], version.version, "passed" if version.passed else "refused"
    )
    return version
