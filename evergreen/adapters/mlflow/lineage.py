"""What a registered version's record says of where it came from (law 7): plain dicts, no MLflow.

From these one finds the data, the spec, the code, the seed, the library versions, who asked and what the gate said.
Called by `registry.py` and `training_runs.py`. To record more, add a key here.
"""

import hashlib
import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence

import orjson

from evergreen.spec import ModelSpec
from evergreen.training.run.job import TrainingJob, shaping
from evergreen.types import LOSS_NAMES, Baselines, Cause, Cost, Digest, Evaluation, GateDecision, Progress, TrainedModel

LIBRARIES = (
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scikit-learn",
    "duckdb",
    "feast",
    "mlflow",
    "pydantic",
)
"""Whose versions can change a model."""
NEEDED_TO_SCORE = ("torch", "numpy", "pandas", "safetensors", "pydantic")
"""What an environment must hold to load a registered model, beside Evergreen itself at its code revision."""
MOST_CHARACTERS = 4_000
"""Of all reasons in a tag or a description; MLflow's Postgres tables hold 5,000, and reasons are joined and quoted."""
A_REASONS_CHARACTERS = 1_000


def verdict(decision: GateDecision) -> str:
    """The gate's word, as tags have it."""
    return "passed" if decision.passed else "refused"


def told_reasons(decision: GateDecision) -> tuple[str, ...]:
    """Why it was refused, as tags and descriptions have it: all where they fit, else the first and how many more there are."""
    reasons = decision.reasons
    if sum(map(len, reasons)) <= MOST_CHARACTERS:
        return reasons
    told: list[str] = []
    for reason in reasons:
        short = reason if len(reason) <= A_REASONS_CHARACTERS else reason[:A_REASONS_CHARACTERS] + "…"
        if sum(map(len, told)) + len(short) > MOST_CHARACTERS:
            break
        told.append(short)
    rest = len(reasons) - len(told)
    return (*told, f"... and {rest:,} more, see gate.json" if rest else "whole in gate.json")


def refusal(decision: GateDecision) -> Digest:
    """By which a verdict is known again: its reasons, but of what a clock measured, which no clock says twice, the name."""
    return _digest_of([c.name if c.timed else c.reason for c in decision.checks if not c.passed])


def about(artifact: Digest, decision: GateDecision) -> str:
    """MLflow's filter for runs and versions of an artifact that passed, or that was refused."""
    return f"tags.`evergreen.artifact` = '{artifact}' and tags.`evergreen.gate` = '{verdict(decision)}'"


def says(tags: Mapping[str, str], decision: GateDecision) -> bool:
    """Whether the tags of a run or a version that `about` finds tell this very verdict."""
    # What was registered before refusals had a digest of their own has all its reasons in its tag.
    known = tags.get("evergreen.refusal") or _digest_of(orjson.loads(tags["evergreen.reasons"]))
    return known == refusal(decision)


def version_tags(candidate: TrainedModel, decision: GateDecision) -> dict[str, str]:
    """What identifies a version and its verdict; enough to decide whether it may be served."""
    return {
        "evergreen.artifact": candidate.digest,
        "evergreen.gate": verdict(decision),
        "evergreen.reasons": orjson.dumps(told_reasons(decision)).decode(),
        "evergreen.refusal": refusal(decision),
    }


def job_tags(job: TrainingJob) -> dict[str, str]:
    """What is known of a run when its training starts."""
    data = job.training_set
    return {
        "evergreen.job": job.digest,
        "evergreen.model": job.spec.name,
        "evergreen.owner": job.spec.model.owner,
        "evergreen.as_of": data.as_of.isoformat(),
        "evergreen.data_digest": data.digest,
        "evergreen.data_uri": data.uri,
        "evergreen.feature_service": data.feature_service,
        "evergreen.spec_digest": job.spec.digest,
        "evergreen.code_revision": job.code_revision,
        "evergreen.seed": str(job.spec.train.seed),
        "evergreen.versions": orjson.dumps(library_versions()).decode(),
    }


def run_tags(
    candidate: TrainedModel, decision: GateDecision, cause: Cause, spec: ModelSpec, tags: Mapping[str, str]
) -> dict[str, str]:
    """Everything law 7 asks for, and the caller's own tags."""
    data = candidate.training_set
    made = {} if candidate.job is None else {"evergreen.job": candidate.job}
    return {
        **made,
        **cost_tags(candidate.cost),
        **version_tags(candidate, decision),
        "evergreen.model": spec.name,
        "evergreen.owner": spec.model.owner,
        "evergreen.cause": cause.value,
        "evergreen.as_of": data.as_of.isoformat(),
        "evergreen.data_digest": data.digest,
        "evergreen.data_uri": data.uri,
        "evergreen.feature_service": data.feature_service,
        "evergreen.spec_digest": candidate.spec_digest,
        "evergreen.code_revision": candidate.code_revision,
        "evergreen.seed": str(candidate.seed),
        "evergreen.versions": orjson.dumps(library_versions()).decode(),
        **tags,
    }


def library_versions() -> dict[str, str]:
    """Python's and those of `LIBRARIES`."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def requirements() -> list[str]:
    """Pins of `NEEDED_TO_SCORE`, without a build's local suffix, which no index serves."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED_TO_SCORE]


def params(candidate: TrainedModel, spec: ModelSpec) -> dict[str, str]:
    """What was chosen before training: the spec's `[train]` table, the rows and the ranks."""
    data = candidate.training_set
    return train_params(spec) | {
        "rows": str(data.rows - data.holdout_rows),
        "holdout_rows": str(data.holdout_rows),
        "features": str(len(data.features)),
        "window": str(data.window),
        "holdout": str(data.holdout),
        "ranks": str(candidate.ranks),
        "seed": str(candidate.seed),
    }


def train_params(spec: ModelSpec) -> dict[str, str]:
    """What shapes the weights, from the spec's `[train]` table."""
    return {f"train.{key}": str(value) for key, value in shaping(spec.train).items()}


def live(progress: Progress) -> dict[str, float]:
    """What a run shows while it trains."""
    told = progress.model_dump(exclude={"step", "steps", "epoch", "epochs", "validation_by_day"}, exclude_none=True)
    return {f"live/{name}": float(value) for name, value in told.items()}


def cost_figures(cost: Cost | None) -> dict[str, float]:
    """What it used, in numbers."""
    told = {} if cost is None else cost.model_dump(exclude={"device", "currency"}, exclude_none=True)
    return {f"cost/{name}": float(value) for name, value in told.items()}


def cost_tags(cost: Cost | None) -> dict[str, str]:
    """Of what, and in which currency."""
    return {} if cost is None else {"evergreen.device": cost.device, "evergreen.currency": cost.currency}


def figures(
    candidate: TrainedModel, evaluation: Evaluation, champion: Evaluation | None, baselines: Baselines
) -> dict[str, float]:
    """What came out: the holdout, whole and by slice, and the champion's and the plain models' on the same rows."""
    found = {f"holdout/{name}": value for name, value in evaluation.overall.figures.items()}
    if champion is not None:
        found |= {f"champion/{name}": value for name, value in champion.overall.figures.items()}
    for name, plain in baselines.evaluations.items():
        found |= {f"baseline/{name}/{figure}": value for figure, value in plain.overall.figures.items()}
    for name, scores in evaluation.slices.items():
        column, _, value = name.partition("=")
        where = re.sub(r"[^\w.\- ]", "_", f"{column}.{value}")
        found |= {f"slice/{where}/{LOSS_NAMES[scores.task].figure}": scores.loss}
    found |= cost_figures(candidate.cost)
    return found | {"training/seconds": candidate.seconds, "training/steps": float(candidate.steps)}


def curve(candidate: TrainedModel) -> list[tuple[str, int, float]]:
    """The training curve as (name, step, value)."""
    return [
        (f"training/{name}", int(row["step"]), value)
        for row in candidate.curve
        for name, value in row.items()
        if name != "step"
    ]


def _digest_of(reasons: Sequence[str]) -> Digest:
    return "sha256:" + hashlib.sha256(orjson.dumps(reasons)).hexdigest()
