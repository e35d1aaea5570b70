"""Training sets and candidates."""

from datetime import datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from evergreen.errors import EvergreenError
from evergreen.spec import ModelSpec
from evergreen.types import TrainedModel, TrainingSet
from evergreen.wiring import code_revision, wiring
from tasks.progress import failed, shown


@task(retries=1, retry_delay_seconds=5)
def build_training_set(spec: ModelSpec, as_of: datetime) -> TrainingSet:
    """Snapshot what was known at `as_of`, point in time, addressed by its content."""
    from evergreen.adapters.feature_tables import build_training_set as build

    wire = wiring()
    training_set = build(wire.settings.data, spec, wire.features, as_of)
    get_run_logger().info(
        "%s rows train, %s rows after %s judge; %s",
        f"{training_set.rows - training_set.holdout_rows:,}",
        f"{training_set.holdout_rows:,}",
        training_set.holdout.start.date(),
        training_set.digest,
    )
    return training_set


@task
def train_candidate(spec: ModelSpec, training_set: TrainingSet) -> TrainedModel:
    """Train in processes of its own; their output goes to this run's logs. A half-done job resumes from its checkpoint."""
    from evergreen.training.job import TrainingJob
    from evergreen.training.launch import train

    logger, settings = get_run_logger(), wiring().settings
    job = TrainingJob(
        training_set=training_set, spec=spec, code_revision=code_revision(), folder=str(settings.artifacts)
    )
    try:
        with shown(job) as on_progress:
            model = train(job, logger.info, on_progress, settings.rates)
    except EvergreenError as error:
        failed(job, error)
        raise
    logger.info("trained in %s", model.cost)
    create_markdown_artifact(key="training", markdown=f"**{spec.name}** trained {model.steps:,} steps in {model.cost}.")
    return model
