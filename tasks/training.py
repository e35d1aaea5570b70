"""Training sets and candidates."""

from datetime import datetime
from typing import TYPE_CHECKING

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from evergreen.errors import EvergreenError, TrainingAbandoned
from evergreen.rival import Rival
from evergreen.spec import ModelSpec
from evergreen.types import Abandoned, Baselines, TrainedModel, TrainingSet
from evergreen.wiring import code_revision, wiring
from tasks.progress import abandoned, failed, shown
from tasks.rival import rival_of

if TYPE_CHECKING:
    from evergreen.training.run.job import TrainingJob


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
def train_candidate(spec: ModelSpec, training_set: TrainingSet, account: str) -> TrainedModel | Abandoned:
    """Train in processes of its own; their output goes to this run's logs. A half-done job resumes from its checkpoint.

    What this run of it uses is noted in the folder `account`.
    A run that can no longer beat the champion is given up where the spec says so: see `[train].abandon_margin`.
    """
    from evergreen.training.run.job import TrainingJob

    folder = str(wiring().settings.artifacts)
    job = TrainingJob(
        training_set=training_set, spec=spec, code_revision=code_revision(), folder=folder, account=account
    )
    return run_job(job, rival_of(spec, training_set))


def run_job(job: "TrainingJob", rival: Rival | None) -> TrainedModel | Abandoned:
    """Train a job and show on the run how far it is; called by tasks. Given up where it cannot beat `rival`."""
    from evergreen.training.run.job import Placement
    from evergreen.training.run.launch import train

    logger, settings = get_run_logger(), wiring().settings
    placement = Placement(trainer=settings.trainer, ray_address=settings.ray_address)
    try:
        with shown(job, rival) as on_progress:
            model = train(job, logger.info, on_progress, settings.rates, placement)
    except TrainingAbandoned as end:
        return abandoned(job, end)
    except EvergreenError as error:
        failed(job, error)
        raise
    logger.info("trained in %s", model.cost)
    create_markdown_artifact(
        key="training", markdown=f"**{job.spec.name}** trained {model.steps:,} steps in {model.cost}."
    )
    return model


@task(retries=1, retry_delay_seconds=5)
def train_baselines(spec: ModelSpec, training_set: TrainingSet) -> Baselines:
    """Train the plain models a candidate has to stand beside; what was trained before is only read."""
    from evergreen.training.baselines import train_baselines as train

    found = train(spec, training_set, code_revision(), wiring().settings.artifacts / "baselines")
    for one in found.tried:
        loss = ""
        if one.evaluation is not None:
            scores = one.evaluation.overall
            loss = f"{scores.loss_name} {scores.told(scores.loss, '.4f')} in {one.cpu_seconds:.1f} CPU s, "
        get_run_logger().info("%s: %s%s", one.name, loss, one.note)
    return found
