"""Begin an A/B test, look at it, end it; like every change of a release a compare-and-swap with its journal row."""

from datetime import datetime

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from evergreen.ab_test import follow, judge
from evergreen.spec import ModelSpec
from evergreen.types import AbTestDecision, AbTestFigures, Arm, Release
from evergreen.wiring import wiring
from tasks.release import change_release, existing, open_test


@task
def begin_test(spec: ModelSpec, version: int, reason: str, as_of: datetime) -> Release:
    """Split the traffic between the champion and a gated version; where that very test runs already, leave it as it is.

    Raises `ArtifactError` for a version that did not pass its gate, `SpecError` where no request has the column
    `[ab_test].entity`, and `InvalidTransition` where the traffic is not free.
    """
    wiring().registry.servable(spec.name, version)

    def begin(current: Release | None) -> Release:
        if current is not None and current.test is not None and current.challenger == version:
            return current
        return open_test(spec, current, version, as_of)

    return change_release(spec, begin, action="ab_test", reason=reason)


@task(retries=2, retry_delay_seconds=1)
def judge_test(spec: ModelSpec, as_of: datetime) -> AbTestDecision | None:
    """Look at both arms since the test began, and put how it stands on the run's page; None where no test runs."""
    from evergreen.monitoring.arms import compare_arms
    from evergreen.monitoring.performance import live_figures

    with wiring().records() as records:
        release = records.releases.current(spec.name)
        if release is None or release.test is None:
            return None
        frame = records.predictions.since(spec.name, release.test.started_at, as_of)
    assert release.champion is not None
    assert release.challenger is not None
    figures = compare_arms(
        frame,
        champion=release.champion,
        challenger=release.challenger,
        as_of=as_of,
        min_label_share=spec.monitor.min_label_share,
        task=spec.model.task,
    )
    live = live_figures(frame, release.challenger, spec.model.task)
    decision = judge(release, figures, live, spec.release, as_of)
    create_table_artifact(
        key="ab-test-checks", table=[check.model_dump() for check in decision.checks], description=decision.verdict
    )
    create_markdown_artifact(key="ab-test", markdown=page(release, figures, decision))
    return decision


@task
def end_test(spec: ModelSpec, decision: AbTestDecision, as_of: datetime) -> Release:
    """Carry the verdict out: the challenger becomes champion, or it goes."""
    return change_release(
        spec,
        lambda current: follow(existing(spec, current), decision, as_of),
        action=f"ab_{decision.verdict}",
        reason="; ".join(decision.reasons),
    )


def page(release: Release, figures: AbTestFigures, decision: AbTestDecision) -> str:
    """How a test stands, for a person."""
    assert release.test is not None
    known = (
        "too few days are in for an interval"
        if decision.low is None or decision.high is None
        else f"between {decision.low:+.4f} and {decision.high:+.4f} at every look, with {release.test.confidence:.0%} confidence"
    )
    arms = "\n".join(
        f"| {role} | {arm.version} | {arm.entities:,} | {arm.rows:,} | {arm.labelled:,} | {_loss(arm)} |"
        for role, arm in (("champion", figures.champion), ("challenger", figures.challenger))
    )
    return "\n".join(
        [
            f"# {release.model}: version {release.challenger} beside version {release.champion}",
            f"Since {release.test.started_at:%Y-%m-%d %H:%M} at {release.challenger_share:.0%}, by "
            f"{release.test.entity or 'example'}: **{decision.verdict.replace('_', ' ')}**.",
            "",
            f"The loss changes by {decision.difference:+.4f} a row over {len(figures.days)} days; {known}.",
            "",
            "| side | version | entities | answers | outcomes | loss |",
            "|---|---|---|---|---|---|",
            arms,
            "",
            *(f"- {reason}" for reason in decision.reasons),
        ]
    )


def _loss(arm: Arm) -> str:
    return "—" if arm.loss is None else f"{arm.loss:.4g}"
