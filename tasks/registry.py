"""Write a candidate, its verdict and its lineage into the registry."""

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from evergreen.card import model_card
from evergreen.spec import ModelSpec
from evergreen.types import Baselines, Cause, Evaluation, GateDecision, ModelVersion, TrainedModel
from evergreen.wiring import wiring
from tasks.progress import flow_tags


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
    version = registry.register(candidate, evaluation, champion, decision, cause, spec, flow_tags(), baselines)
    create_link_artifact(
        key="mlflow-run",
        link=registry.run_url(version.run_id),
        link_text=f"{spec.name} version {version.version} in MLflow",
    )
    card = model_card(spec, candidate, evaluation, champion, decision, cause)
    create_markdown_artifact(key="model-card", markdown=card)
    get_run_logger().info(
        "%s is version %d: %s", candidate.digest[:19], version.version, "passed" if version.passed else "refused"
    )
    return version
