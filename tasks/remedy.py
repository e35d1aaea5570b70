"""A candidate by the remedy that was asked for: the champion recalibrated, the champion tuned further, or a new network."""

from datetime import datetime, timedelta
from pathlib import Path

from prefect import get_run_logger, task

from evergreen.errors import UnknownModel
from evergreen.spec import ModelSpec
from evergreen.tuning import with_values
from evergreen.types import Abandoned, Baselines, ModelVersion, Remedy, TrainedModel, TrainingSet
from evergreen.wiring import code_revision, wiring
from tasks.gate import champion_of
from tasks.training import run_job, train_baselines, train_candidate
from tasks.tune import build_tuning_set, search, write_tuned_spec


def spec_by(spec: ModelSpec, remedy: Remedy, as_of: datetime, account: str) -> ModelSpec:
    """The spec to train with: after a search with the best values it found, else the model's file's.

    What the trials use is noted in the folder `account`.
    """
    if remedy != Remedy.SEARCH:
        return spec
    tuning = write_tuned_spec(spec, search(spec, build_tuning_set(spec, as_of), account))
    return with_values(spec, tuning.best.values)


def candidate_by(spec: ModelSpec, remedy: Remedy, training_set: TrainingSet, account: str) -> TrainedModel | Abandoned:
    """Make the candidate; cheap remedies begin with the champion. What it uses is noted in the folder `account`.

    Raises `UnknownModel` where one needs a champion and there is none.
    """
    if remedy.trains_anew:
        return train_candidate(spec, training_set, account)
    champion = champion_of(spec)
    if champion is None:
        raise UnknownModel(
            f"{spec.name!r} has no champion that {remedy} could begin with; ask for remedy=retrain first."
        )
    if remedy == Remedy.RECALIBRATE:
        return recalibrate_champion(spec, champion, training_set, account)
    return fine_tune_champion(spec, champion, training_set, account)


def baselines_by(spec: ModelSpec, remedy: Remedy, training_set: TrainingSet) -> Baselines:
    """Plain models beside the candidate: a cheap remedy does without, unless the gate compares with them."""
    if remedy.trains_anew or spec.gate.baseline_margin is not None:
        return train_baselines(spec, training_set)
    return Baselines()


@task(retries=1, retry_delay_seconds=5)
def recalibrate_champion(
    spec: ModelSpec, champion: ModelVersion, training_set: TrainingSet, account: str
) -> TrainedModel | Abandoned:
    """Move the champion's scores to the newest outcomes before the holdout; abandoned where those are too few."""
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.recalibrate import recalibrate, unlearnt
    from evergreen.training.run.spending import note_cost

    wire = wiring()
    made = wire.registry.candidate(champion)
    rows = unlearnt(load_training_set(training_set), training_set, made, spec.remedy.calibration_days)
    if len(rows) < spec.monitor.min_labels:
        reason = (
            f"{len(rows):,} outcomes that version {champion.version} has not learnt from lie before "
            f"{training_set.holdout.start.date()}, and [monitor].min_labels asks for {spec.monitor.min_labels:,}"
        )
        return Abandoned(model=spec.name, job=training_set.digest, reason=reason)
    folder = wire.registry.fetch(champion, wire.settings.models_cache)
    found = recalibrate(folder, made, training_set, rows, wire.settings.artifacts / "recalibrated", code_revision())
    if found.cost is not None:
        note_cost(Path(account), found.cost)
    get_run_logger().info("recalibrated version %d on %s rows in %s", champion.version, f"{len(rows):,}", found.cost)
    return found.model_copy(update={"spec_digest": spec.digest})


@task
def fine_tune_champion(
    spec: ModelSpec, champion: ModelVersion, training_set: TrainingSet, account: str
) -> TrainedModel | Abandoned:
    """Train the champion's weights further on the newest rows before the holdout; killed, it goes on from its checkpoint."""
    from evergreen.training.run.job import Base, TrainingJob

    wire = wiring()
    made = wire.registry.candidate(champion)
    folder = wire.registry.fetch(champion, wire.settings.models_cache)
    since = training_set.holdout.start - timedelta(days=spec.remedy.tune_days)
    job = TrainingJob(
        training_set=training_set,
        spec=spec.fine_tuning,
        code_revision=code_revision(),
        folder=str(wire.settings.artifacts),
        base=Base(uri=str(folder), digest=champion.artifact, since=since),
        account=account,
    )
    found = run_job(job, rival=None)
    if isinstance(found, Abandoned):
        return found
    update = {
        "spec_digest": spec.digest,
        "remedy": Remedy.FINE_TUNE,
        "base": champion.artifact,
        "anew_until": made.trained_anew_until,
        "anew_rows": made.trained_anew_rows,
    }
    return found.model_copy(update=update)
