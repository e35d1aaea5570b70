"""Trials of other values for `[train]`: each is a training like any other, judged on days that come after its rows."""

import os
import shutil
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast
from uuid import UUID

from prefect import get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from evergreen.errors import TrainingAbandoned
from evergreen.spec import ModelSpec
from evergreen.tuning import Value, axes_of, best_of, difference, present, rewritten, study_name, with_values
from evergreen.types import Cost, Progress, TrainingSet, Trial, Tuning
from evergreen.wiring import code_revision, wiring
from tasks.gate import evaluate_artifact
from tasks.moment import moment

if TYPE_CHECKING:
    from evergreen.adapters.studies import Report

STAGES = 4
"""A trial's validation loss is compared with the others' at each quarter of it."""


def day_of(as_of: datetime | None) -> datetime:
    """`as_of`, or the start of today: a run that is started again on the same day goes on."""
    return moment(as_of) if as_of is not None else moment(None).replace(hour=0, minute=0, second=0, microsecond=0)


@task(retries=1, retry_delay_seconds=5)
def build_tuning_set(spec: ModelSpec, as_of: datetime) -> TrainingSet:
    """Rows for the trials: those that judge end where the holdout of a retrain at `as_of` starts, which no trial sees."""
    from evergreen.adapters.feature_tables import build_training_set as build

    wire = wiring()
    longer = spec.model_copy(update={"train": spec.train.model_copy(update={"holdout_days": spec.tune.holdout_days})})
    training_set = build(wire.settings.data, longer, wire.features, as_of - timedelta(days=spec.train.holdout_days))
    get_run_logger().info(
        "trials train on %s rows, %s rows in %s judge them",
        f"{training_set.rows - training_set.holdout_rows:,}",
        f"{training_set.holdout_rows:,}",
        training_set.holdout,
    )
    return training_set


@task(cache_policy=NO_CACHE)
def search(spec: ModelSpec, training_set: TrainingSet, account: str | None = None) -> tuple[str, tuple[Trial, ...]]:
    """Run the trials, as many at once as the machine has cores for; the study's name and all of its trials.

    What they use is noted in the folder `account` too.
    """
    from evergreen.adapters.studies import Study

    wire, logger = wiring(), get_run_logger()
    axes = axes_of(spec)
    name = study_name(spec.name, training_set, axes)
    bar = cast(UUID, create_progress_artifact(0.0, key=f"tuning-{_dashed(spec.name)}", description=name))
    with Study(wire.settings.tables_url, name, spec.tune, axes, present(spec)) as study:
        logger.info("%s the study %r", "going on with" if study.goes_on else "beginning", name)

        def objective(values: dict[str, Value], report: "Report") -> tuple[float | None, Cost | None]:
            return try_values(with_values(spec, values), training_set, report, account)

        def on_trial(trial: Trial) -> None:
            logger.info("trial %d %s: %s", trial.number, trial.state, _told(trial))
            done = sum(one.state in ("complete", "pruned", "failed") for one in study.trials)
            update_progress_artifact(bar, min(100.0, 100 * done / spec.tune.trials), description=f"{done} trials ended")

        study.search(objective, max(1, (os.cpu_count() or 1) // spec.train.ranks), on_trial)
        return name, study.trials


def try_values(
    spec: ModelSpec, training_set: TrainingSet, report: "Report", account: str | None
) -> tuple[float | None, Cost | None]:
    """Train with the spec's values and score the days that judge; the loss is None when `report` had it stopped."""
    from evergreen.training.run.job import TrainingJob
    from evergreen.training.run.launch import train
    from evergreen.training.run.processes import locked
    from evergreen.training.run.spending import spent

    settings = wiring().settings
    folder = settings.artifacts / "tune" / spec.name
    job = TrainingJob(
        training_set=training_set, spec=spec, code_revision=code_revision(), folder=str(folder), account=account
    )
    reported: set[int] = set()

    def watch(progress: Progress) -> None:
        stage = STAGES * progress.epoch // progress.epochs
        if progress.validation_loss is None or stage == 0 or stage in reported:
            return
        reported.add(stage)
        if report(stage, progress.validation_loss) and stage < STAGES:
            raise TrainingAbandoned(f"others did better at {stage}/{STAGES} of their epochs")

    loss, locks = None, settings.artifacts / "tune-locks"
    locks.mkdir(parents=True, exist_ok=True)
    with locked(locks / job.path.name, lambda: None):  # equal values tried at once share a folder
        with suppress(TrainingAbandoned):
            model = train(job, lambda _: None, watch)
            loss = evaluate_artifact(spec, model.uri, model.digest, training_set).overall.loss
        cost = spent(job.spent_path, settings.rates)
        shutil.rmtree(job.path)  # what the study keeps of it is enough
    return loss, cost


@task
def write_tuned_spec(spec: ModelSpec, found: tuple[str, tuple[Trial, ...]]) -> Tuning:
    """Write the best values as a spec beside the reports, and show how it differs from the present one.

    Raises `TrainingFailed` where no trial ended well.
    """
    settings, logger = wiring().settings, get_run_logger()
    name, trials = found
    best, now = best_of(trials, name), present(spec)
    text = (settings.models_dir / f"{spec.name}.toml").read_text()
    changed = {key: value for key, value in best.values.items() if value != now.get(key)}
    tuned = rewritten(text, changed, f"{spec.name}.toml") if changed else text
    path = settings.home / "reports" / f"{spec.name}.tuned.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tuned)
    tuning = Tuning(
        model=spec.name,
        study=name,
        trials=trials,
        best=best,
        present=next((trial for trial in trials if trial.state == "complete" and trial.values == now), None),
        uri=str(path),
        diff=difference(text, tuned, spec.name),
    )
    _show(tuning)
    logger.info("%s\n%s", _verdict(tuning), tuning.diff)
    return tuning


def _show(tuning: Tuning) -> None:
    rows = [
        {"trial": t.number, "state": t.state, "loss": t.loss, **t.values, "cost": "" if t.cost is None else str(t.cost)}
        for t in sorted(tuning.trials, key=lambda t: (t.loss is None, t.loss, t.number))
    ]
    create_table_artifact(key=f"trials-{_dashed(tuning.model)}", table=rows, description=tuning.study)
    change = f"```diff\n{tuning.diff}```" if tuning.diff else "The present values stay."
    create_markdown_artifact(key="tuned-spec", markdown=f"{_verdict(tuning)}\n\n{change}\n\n`{tuning.uri}`")


def _verdict(tuning: Tuning) -> str:
    now = "did not end well" if tuning.present is None else f"have {tuning.present.loss:.4f}"
    pruned = sum(trial.state == "pruned" for trial in tuning.trials)
    seconds = sum(trial.cost.device_seconds for trial in tuning.trials if trial.cost is not None)
    return (
        f"{tuning.model}: the best of {len(tuning.trials)} trials ({pruned} pruned) has loss {tuning.best.loss:.4f}, "
        f"the present values {now}; all of them took {seconds:,.0f} device seconds"
    )


def _told(trial: Trial) -> str:
    values = ", ".join(
        f"{key} {f'{value:.3g}' if isinstance(value, float) else value}" for key, value in trial.values.items()
    )
    return values if trial.loss is None else f"loss {trial.loss:.4f} with {values}"


def _dashed(name: str) -> str:
    return name.replace("_", "-")
