"""Score candidate and champion on the same held-out rows, and judge."""

from prefect import task
from prefect.artifacts import create_table_artifact

from evergreen.errors import ArtifactError
from evergreen.gate import decide
from evergreen.spec import GateConfig, ModelSpec
from evergreen.types import Digest, Evaluation, GateDecision, TrainedModel, TrainingSet
from evergreen.wiring import wiring


@task
def evaluate_candidate(spec: ModelSpec, candidate: TrainedModel, training_set: TrainingSet) -> Evaluation:
    """Score the candidate on the holdout."""
    return evaluate_artifact(spec, candidate.uri, candidate.digest, training_set)


@task(retries=2, retry_delay_seconds=5)
def evaluate_champion(spec: ModelSpec, training_set: TrainingSet) -> Evaluation | None:
    """Score the champion again, now, on the same rows; None where there is none."""
    wire = wiring()
    with wire.records() as records:
        release = records.releases.current(spec.name)
    if release is None or release.champion is None:
        return None
    version = wire.registry.version(spec.name, release.champion)
    folder = wire.registry.fetch(version, wire.settings.models_cache)
    return evaluate_artifact(spec, str(folder), version.artifact, training_set)


@task
def judge(candidate: Evaluation, champion: Evaluation | None, rules: GateConfig) -> GateDecision:
    """Decide, and put every check on the flow run's page."""
    decision = decide(candidate, champion, rules)
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
    return decision


def evaluate_artifact(spec: ModelSpec, uri: str, digest: Digest, training_set: TrainingSet) -> Evaluation:
    """Score the holdout of `training_set` with the artifact at `uri`; raises `ArtifactError` when its bytes changed, or
    it answers another task than the spec's."""
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.evaluation import evaluate
    from evergreen.reliability import reliability
    from evergreen.training.predictor import Predictor

    rows = load_training_set(training_set)
    rows = rows[rows["event_timestamp"] >= training_set.holdout.start]
    predictor = Predictor.load(uri, digest)
    if predictor.task != spec.model.task:
        raise ArtifactError(
            f"the artifact {digest[:19]}… of {spec.name} is a {predictor.task} model, but [model].task is now "
            f"{spec.model.task!r}: another question needs a model of another name. Copy the file under one, or put the task back."
        )
    scores = predictor.score({name: rows[name].to_numpy() for name in predictor.inputs})
    found = evaluate(
        model=spec.name,
        artifact=digest,
        holdout=training_set.holdout,
        holdout_digest=training_set.digest,
        labels=rows["label"].to_numpy(),
        scores=scores,
        days=rows["event_timestamp"].dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(),
        slices={name: rows[name].astype(str).to_numpy() for name in spec.data.slices},
        task=spec.model.task,
    )
    if spec.model.task != "binary":
        return found
    return found.model_copy(update={"reliability": reliability(rows["label"], scores)})
