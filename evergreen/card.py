"""A version's model card: what it is, what it learned from, how it was judged, and where it should not be believed.

Pure markdown from what is known (spec, training set, figures, verdict), so it cannot disagree with them; nobody fills in a
form. Kept as `card.md` with the version's MLflow run and shown on the page of the run that registered it. The headings are
those of Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

from collections.abc import Iterator

from evergreen.spec import ModelSpec
from evergreen.types import Cause, Evaluation, GateDecision, Scores, TrainedModel

WEAK_SLICES = 5
LEADING_FEATURES = 10
FEW_ROWS = 100
"""Slices of fewer rows are not ranked."""


def model_card(
    spec: ModelSpec,
    candidate: TrainedModel,
    evaluation: Evaluation,
    champion: Evaluation | None,
    decision: GateDecision,
    cause: Cause,
) -> str:
    """The whole card in markdown."""
    data = candidate.training_set
    word = "passed its gate" if decision.passed else "**was refused**"
    parts = [
        f"# {spec.name} as of {data.as_of:%Y-%m-%d %H:%M} UTC",
        f"A {spec.model.task} model that {word}. Owner: {spec.model.owner}. Asked for by: {cause}.",
        "## What it answers",
        f"`{spec.data.label}` of each row of `{spec.data.examples}`, asked {spec.data.lead_minutes} minutes before "
        f"`{spec.data.event_time}`, from the {len(data.features)} features of `{data.feature_service}`: "
        + ", ".join(f"`{name}`" for name in data.features)
        + ".",
        "## What it learned from",
        f"{data.rows - data.holdout_rows:,} rows of {data.window.start:%Y-%m-%d} to {data.holdout.start:%Y-%m-%d}, as they "
        f"were known on {data.as_of:%Y-%m-%d}. The {data.holdout_rows:,} rows after that, of {evaluation.days} days, judged it "
        "and taught it nothing.",
        "## How good it is",
        *_figures(evaluation.overall, champion.overall if champion else None),
        "## Where it is weakest",
        *_weakest(evaluation),
        "## What it leans on",
        *_leanings(evaluation),
        "## The verdict",
        *_verdict(decision),
        "## Where not to believe it",
        *_limits(spec, candidate),
        "## How to make it again",
        f"Data `{data.digest}`, spec `{candidate.spec_digest}`, code `{candidate.code_revision}`, seed {candidate.seed}, "
        f"{candidate.steps:,} steps in {candidate.seconds:.0f} s; artifact `{candidate.digest}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _figures(mine: Scores, theirs: Scores | None) -> Iterator[str]:
    head = "| figure | this version | champion, same rows |\n|---|---|---|\n"
    rows = (
        f"| {name.replace('_', ' ')} | {value:.4g} | {_number(theirs, name)} |"
        for name, value in sorted(mine.figures.items())
    )
    yield head + "\n".join(rows)


def _number(scores: Scores | None, name: str) -> str:
    found = None if scores is None else scores.figures.get(name)
    return "—" if found is None else f"{found:.4g}"


def _weakest(evaluation: Evaluation) -> Iterator[str]:
    loss = next(iter(set(evaluation.overall.figures) & {"log_loss", "mse"}))
    judged = [
        (scores[loss], name, scores.rows) for name, scores in evaluation.slices.items() if scores.rows >= FEW_ROWS
    ]
    if not judged:
        yield f"No slice has {FEW_ROWS} rows."
        return
    head = f"| slice | {loss.replace('_', ' ')} | rows |\n|---|---|---|\n"
    yield head + "\n".join(
        f"| {name} | {value:.4g} | {rows:,} |" for value, name, rows in sorted(judged)[: -WEAK_SLICES - 1 : -1]
    )


def _leanings(evaluation: Evaluation) -> Iterator[str]:
    found = evaluation.attribution
    if found is None or not found.features:
        yield "That was not measured: `[gate].attribution_rows` is 0."
        return
    yield (
        f"How far its {evaluation.overall.loss_name} rises when one feature is shuffled among {found.rows:,} held-out rows of "
        f"{found.days} days, and that feature's share of all rises. Features that say the same stand in for each other."
    )
    head = "| feature | rise | standard error over days | share |\n|---|---|---|---|\n"
    yield head + "\n".join(
        f"| {one.feature} | {one.rise:+.4g} | {'—' if one.error is None else f'{one.error:.2g}'} | "
        f"{found.shares[one.feature]:.0%} |"
        for one in found.features[:LEADING_FEATURES]
    )


def _verdict(decision: GateDecision) -> Iterator[str]:
    head = "| check | | reason |\n|---|---|---|\n"
    yield head + "\n".join(
        f"| {c.name} | {'passed' if c.passed else '**refused**'} | {c.reason} |" for c in decision.checks
    )


def _limits(spec: ModelSpec, candidate: TrainedModel) -> Iterator[str]:
    data = candidate.training_set
    yield "\n".join(
        (
            f"- After {spec.monitor.max_age_days} days its age alone raises an alarm: nothing it saw is of after "
            f"{data.holdout.start:%Y-%m-%d}.",
            "- A category or an entity it has not seen is answered as missing, and counted.",
            "- Its figures are those of the judged days; a kind of day that did not occur among them is not proved.",
        )
    )
