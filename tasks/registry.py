"""Write a candidate, its verdict and its lineage into the registry."""

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run

from evergreen.spec import ModelSpec
from evergreen.types import Baselines, Cause, Evaluation, GateDecision, ModelVersion, TrainedModel
from evergreen.wiring import wiring


@task(retries=2, retry_delay_seconds=5)
def register(
    spec: ModelSpec,
    candidate: TrainedModel,
    evaluation: Evaluation,
    champion: Evaluation | None,
    baselines: Baselines,
    decision: GateDecision,
    cause: Cause,
) -> ModelVersion:
    """Register the version, refused ones too; the same candidate again is the same version."""
    registry = wiring().registry
    tags = {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_url": str(flow_run.ui_url)}
    version = registry.register(candidate, evaluation, champion, decision, cause, spec, tags, baselines)
    create_link_artifact(
        key="mlflow-run",
        link=registry.run_url(version.run_id),
        link_text=f"{spec.name} version {version.version} in MLflow",
    )
    get_run_logger().info(
        "%s is version %d: %s", candidate.digest[:19], version.version, "passed" if version.passed else "refused"
    )
    return version
