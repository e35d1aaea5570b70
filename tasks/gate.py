"""Score candidate and champion on the same held-out rows, and judge."""

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from prefect import task
from prefect.artifacts import create_table_artifact

from evergreen.errors import ArtifactError, DataError
from evergreen.gate import decide
from evergreen.monitoring.windows import sample_by_day
from evergreen.spec import GateConfig, ModelSpec
from evergreen.types import (
    Attribution,
    Baselines,
    Digest,
    Evaluation,
    Footprint,
    GateDecision,
    GroupDay,
    ModelVersion,
    Parity,
    TrainedModel,
    TrainingSet,
)
from evergreen.wiring import wiring
from serving.features import given
from serving.scoring import score_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from evergreen.training.predictor import Predictor

TIMED_ROWS = 200
WARM_ROWS = 20


@task
def evaluate_candidate(spec: ModelSpec, candidate: TrainedModel, training_set: TrainingSet) -> Evaluation:
    """Score the candidate on the holdout, and see what it leans on and how it treats groups."""
    evaluation = evaluate_artifact(spec, candidate.uri, candidate.digest, training_set)
    return evaluation.model_copy(
        update={
            "attribution": _attribution(spec, candidate, training_set),
            "groups": _groups(spec, candidate, training_set),
        }
    )


@task(retries=2, retry_delay_seconds=5)
def evaluate_champion(spec: ModelSpec, training_set: TrainingSet) -> Evaluation | None:
    """Score the champion again, now, on the same rows; None where there is none."""
    champion = champion_of(spec)
    if champion is None:
        return None
    wire = wiring()
    made = wire.registry.candidate(champion)
    folder = wire.registry.fetch(champion, wire.settings.models_cache)
    found = evaluate_artifact(
        spec, str(folder), champion.artifact, training_set, own_service=made.training_set.feature_service
    )
    # A recalibrated one learnt last after its weights did.
    return found.model_copy(update={"learnt_until": max(made.weights_until, made.training_set.holdout.start)})


@task
def measure(candidate: TrainedModel, training_set: TrainingSet) -> Footprint:
    """Weigh the artifact, and answer held-out rows one at a time through serving's own scoring.

    Timed is what depends on the version: from a request's cells to its answer and what is logged of it. HTTP, the queue and
    the log itself are every version's alike.
    """
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.predictor import Predictor

    predictor = Predictor.load(candidate.uri, candidate.digest)
    rows = load_training_set(training_set).tail(TIMED_ROWS + WARM_ROWS)
    cells = {name: rows[name].tolist() for name in predictor.inputs}
    asked, seconds = [0], []
    for place in range(len(rows)):
        examples = given(["timed"], {name: [column[place]] for name, column in cells.items()}, datetime.now(UTC))
        started = time.perf_counter()
        score_rows(predictor, 0, examples, asked, None)
        seconds.append(time.perf_counter() - started)
    timed = seconds[WARM_ROWS:] or seconds
    size = sum(file.stat().st_size for file in Path(candidate.uri).rglob("*") if file.is_file())
    return Footprint(size_bytes=size, p99_row_ms=1000 * float(np.quantile(timed, 0.99)), rows=len(timed))


@task
def judge(
    candidate: Evaluation,
    champion: Evaluation | None,
    baselines: Baselines,
    footprint: Footprint,
    parity: Parity | None,
    rules: GateConfig,
) -> GateDecision:
    """Decide, and put every check on the flow run's page, and what each feature is worth."""
    decision = decide(candidate, champion, rules, baselines, footprint=footprint, parity=parity)
    create_table_artifact(
        key="gate",
        table=[
            {
                "check": c.name,
                "verdict": "passed" if c.passed else "refused",
                "figure": c.figure,
                "rule": c.rule,
                "reason": c.reason,
            }
            for c in decision.checks
        ],
        description=f"**{candidate.model}**: "
        + ("passed" if decision.passed else "refused: " + "; ".join(decision.reasons)),
    )
    if (found := candidate.attribution) is not None and found.features:
        shares = found.shares
        create_table_artifact(
            key="attribution-table",
            table=[one.model_dump() | {"share": shares[one.feature]} for one in found.features],
            description=f"What it leans on: the rise of the {candidate.overall.loss_name} when one feature is shuffled, its "
            "standard error over days, and its share of all rises.",
        )
    return decision


def champion_of(spec: ModelSpec) -> ModelVersion | None:
    """The version that serves now, if one does."""
    with wiring().records() as records:
        release = records.releases.current(spec.name)
    if release is None or release.champion is None:
        return None
    return wiring().registry.version(spec.name, release.champion)


def evaluate_artifact(
    spec: ModelSpec, uri: str, digest: Digest, training_set: TrainingSet, own_service: str | None = None
) -> Evaluation:
    """Score the holdout of `training_set` with the artifact at `uri`.

    What the set's rows lack is joined from `own_service`, the one the artifact was trained on. Raises `DataError` where it reads
    what neither has, `ArtifactError` when its bytes changed, or it answers another task than the spec's.
    """
    return evaluate_rows(spec, uri, digest, training_set, _held_out(training_set), spec.data.slices, own_service)


def evaluate_rows(
    spec: ModelSpec,
    uri: str,
    digest: Digest,
    training_set: TrainingSet,
    rows: "DataFrame",
    slices: Sequence[str],
    own_service: str | None = None,
) -> Evaluation:
    """Score some rows of `training_set`; see `evaluate_artifact`."""
    from evergreen.evaluation import evaluate, sound
    from evergreen.reliability import reliability
    from evergreen.training.predictor import Predictor

    predictor = Predictor.load(uri, digest)
    if predictor.task != spec.model.task:
        raise ArtifactError(
            f"the artifact {digest[:19]}… of {spec.name} is a {predictor.task} model, but [model].task is now "
            f"{spec.model.task!r}: another question needs a model of another name. Copy the file under one, or put the task back."
        )
    if own_service is not None:
        rows = _with_inputs(spec, predictor, rows, own_service)
    scores, unsound = sound(spec.model.task, predictor.score(predictor.columns(rows)))
    found = evaluate(
        model=spec.name,
        artifact=digest,
        holdout=training_set.holdout,
        holdout_digest=training_set.digest,
        labels=rows["label"].to_numpy(),
        scores=scores,
        days=_days(rows),
        slices={name: rows[name].astype(str).to_numpy() for name in slices},
        task=spec.model.task,
    )
    bins = reliability(rows["label"], scores) if spec.model.task == "binary" else ()
    return found.model_copy(update={"reliability": bins, "unsound_scores": unsound})


def _with_inputs(spec: ModelSpec, predictor: "Predictor", rows: "DataFrame", service: str) -> "DataFrame":
    """The rows with what the model reads and the spec no longer gives, as known when each was asked about."""
    from evergreen.adapters.feature_tables import read_asked

    missing = [name for name in predictor.inputs if name not in rows]
    if not missing:
        return rows
    wire = wiring()
    asked = rows[["example_id", "event_timestamp"]].assign(prediction_id=rows["example_id"])
    joined = wire.features.historical(service, read_asked(wire.settings.data, spec, asked)).set_index("example_id")
    gone = [name for name in missing if name not in joined]
    if gone:
        raise DataError(
            f"the champion of {spec.name!r} reads {gone}, which neither the model's file nor feature service {service!r} gives "
            "any more, so no candidate can be held against it. Put them back; where they are gone for good, copy the file "
            "under another name: the first version of a model needs no champion."
        )
    return rows.assign(**{name: joined[name].reindex(rows["example_id"]).to_numpy() for name in missing})


def _attribution(spec: ModelSpec, candidate: TrainedModel, training_set: TrainingSet) -> Attribution | None:
    from evergreen.attribution import attribute
    from evergreen.training.predictor import Predictor

    if not spec.gate.attribution_rows:
        return None
    predictor, seed = Predictor.load(candidate.uri, candidate.digest), spec.train.seed
    rows = sample_by_day(_held_out(training_set), spec.gate.attribution_rows, seed=seed)
    columns = predictor.columns(rows)
    return attribute(predictor.score, columns, rows["label"], _days(rows), spec.model.task, seed=seed)


def _groups(spec: ModelSpec, candidate: TrainedModel, training_set: TrainingSet) -> dict[str, dict[date, GroupDay]]:
    from evergreen.evaluation import sound
    from evergreen.groups import count_groups
    from evergreen.training.predictor import Predictor

    fairness, task_of = spec.gate.fairness, spec.model.task
    if fairness is None:
        return {}
    predictor, rows = Predictor.load(candidate.uri, candidate.digest), _held_out(training_set)
    scores, _ = sound(task_of, predictor.score(predictor.columns(rows)))
    names = rows[fairness.column].tolist()
    return count_groups(names, rows["label"], scores, _days(rows), threshold=fairness.threshold, task=task_of)


def _held_out(training_set: TrainingSet) -> "DataFrame":
    from evergreen.adapters.feature_tables import load_training_set

    rows = load_training_set(training_set)
    return rows[rows["event_timestamp"] >= training_set.holdout.start]


def _days(rows: "DataFrame") -> "NDArray[np.datetime64]":
    moments: NDArray[np.datetime64] = rows["event_timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    return moments
