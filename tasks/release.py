"""Move versions between challenger, champion and previous; every change is one compare-and-swap with its journal row.

A change is journalled under the flow run's name, so a run that died after it and is retried finds it done. What follows a
change, the aliases in MLflow, is a task of its own that may be done as often as one likes.
"""

from collections.abc import Callable
from datetime import datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.events import emit_event
from prefect.runtime import flow_run

from evergreen.ab_test import plan
from evergreen.adapters.reconciler import reconcile, show
from evergreen.errors import InvalidTransition, SpecError, UnknownModel
from evergreen.release import promote, start, start_test
from evergreen.rollout import follow, judge
from evergreen.spec import ModelSpec
from evergreen.types import Finding, Release, ReleaseDecision
from evergreen.wiring import wiring

EVENT = "evergreen.release.reconciled"


@task
def start_canary(spec: ModelSpec, version: int, reason: str, as_of: datetime, again: bool = False) -> Release:
    """Give a gated version its first share, or an A/B test; with no champion it becomes champion at once.

    A version that was released before is left as it is: a run that was killed after this step finds it done, and one
    that a guardrail took back does not come in again, unless a person says `again`. While an A/B test of another version
    runs, or a newer version is rolled out, nothing is changed; `kept_out` says why. Raises `ArtifactError` for a version
    that may not serve.
    """
    wiring().registry.servable(spec.name, version)
    with wiring().records() as records:
        released = {entry.after.challenger or entry.after.champion for entry in records.releases.journal(spec.name)}

    def begin(current: Release | None) -> Release:
        if current is not None and (
            version in (current.champion, current.challenger)
            or (version in released and not again)
            or current.test is not None
            or (current.challenger or 0) > version
        ):
            return current
        if spec.release.kind == "ab_test" and current is not None and current.champion is not None:
            return open_test(spec, current, version, as_of)
        return start(current, model=spec.name, version=version, share=spec.release.steps[0], at=as_of)

    return change_release(spec, begin, action="start", reason=reason)


def kept_out(release: Release | None, version: int) -> tuple[str, ...]:
    """Why a version that passed its gate was not started, in words; empty when it was."""
    if release is None or version in (release.champion, release.challenger):
        return ()
    if release.test is not None:
        return (
            f"version {version} was not started: an A/B test of version {release.challenger} has the traffic to itself since "
            f"{release.test.started_at:%Y-%m-%d %H:%M}. When that is over, run `roll_out` with action=start and "
            f"version={version}, or `ab_test` with its number.",
        )
    if (release.challenger or 0) > version:
        return (
            f"version {version} was not started: version {release.challenger}, which was judged on newer rows, is being "
            f"rolled out. When that is over, run `roll_out` with action=start and version={version}.",
        )
    return (
        f"version {version} was not started: it was before, and has been taken back or replaced since, as the journal tells. "
        f"To give it another chance, run `roll_out` with action=start, version={version} and again=true.",
    )


@task
def start_now(spec: ModelSpec, version: int | None, reason: str, as_of: datetime, again: bool) -> Release:
    """`start_canary` on a person's word, who is told where it may not be: raises `InvalidTransition`."""
    if version is None:
        raise InvalidTransition(f"which version of {spec.name} shall start? Give its number as `version`")
    release = start_canary.fn(spec, version, reason, as_of, again)
    for reason_against in kept_out(release, version):
        raise InvalidTransition(reason_against)
    return release


@task(retries=2, retry_delay_seconds=1)
def judge_challenger(spec: ModelSpec, as_of: datetime) -> ReleaseDecision | None:
    """Look at what the challenger did, since its last step and day by day since its start; None when there is none."""
    from evergreen.monitoring.performance import live_figures
    from evergreen.monitoring.shadow import paired_days

    with wiring().records() as records:
        release = records.releases.current(spec.name)
        if release is None or release.challenger is None:
            return None
        if release.test is not None:
            get_run_logger().info("an A/B test of version %d has the traffic to itself", release.challenger)
            return None
        since = records.releases.challenger_since(spec.name) or release.changed_at
        frame = records.predictions.since(spec.name, since, as_of)
    assert release.champion is not None  # a challenger without one would have become it
    task = spec.model.task
    days = paired_days(
        frame,
        champion=release.champion,
        challenger=release.challenger,
        as_of=as_of,
        min_label_share=spec.monitor.min_label_share,
        task=task,
    )
    frame = frame[frame["event_timestamp"] >= release.changed_at]
    champion, challenger = live_figures(frame, release.champion, task), live_figures(frame, release.challenger, task)
    decision = judge(release, champion, challenger, spec.release, as_of, list(days.values()), since)
    create_table_artifact(
        key="release", table=[check.model_dump() for check in decision.checks], description="; ".join(decision.reasons)
    )
    return decision


@task
def apply_decision(spec: ModelSpec, decision: ReleaseDecision, as_of: datetime) -> Release:
    """Do what was decided: the next share, all of the traffic, or back."""
    return change_release(
        spec,
        lambda current: follow(existing(spec, current), decision, spec.release, as_of),
        action=decision.action,
        reason="; ".join(decision.reasons),
    )


@task(retries=2, retry_delay_seconds=1)
def current_release(spec: ModelSpec) -> Release:
    """The release as it is."""
    with wiring().records() as records:
        return existing(spec, records.releases.current(spec.name))


@task
def roll_back_now(spec: ModelSpec, reason: str, as_of: datetime, again: bool = False) -> Release:
    """Drop the challenger if there is one, else put the previous champion back; `again`: right after a roll-back too."""
    with wiring().records() as records:
        done = records.releases.take_back(spec.name, at=as_of, reason=reason, again=again, **_asker("roll_back"))
    if done.already is not None:
        get_run_logger().warning("%s", done.already)
    _log("roll_back", done.release)
    return done.release


@task
def promote_now(spec: ModelSpec, reason: str, as_of: datetime) -> Release:
    """Give the challenger all of the traffic without waiting for its dwell: a person's call."""
    return change_release(
        spec, lambda current: promote(existing(spec, current), at=as_of), action="promote", reason=reason
    )


@task(retries=3, retry_delay_seconds=2)
def mirror_aliases(release: Release) -> None:
    """Point MLflow's aliases at what the release says now."""
    wire = wiring()
    show(wire.engine, wire.registry, release.model)


@task(retries=2, retry_delay_seconds=5)
def put_right() -> tuple[Finding, ...]:
    """Repair what differs from the journals, and tell of it: in the log, on the run's page, and as an event each."""
    wire = wiring()
    found = reconcile(wire.engine, wire.registry)
    for finding in found:
        get_run_logger().warning("%s: %s", finding.model, finding.reason)
        emit_event(
            event=EVENT,
            resource={
                "prefect.resource.id": f"evergreen.model.{finding.model}",
                "prefect.resource.name": finding.model,
            },
            payload=finding.model_dump(mode="json"),
        )
    create_table_artifact(
        key="reconciled",
        table=[finding.model_dump(mode="json") for finding in found],
        description=f"{len(found)} differences from the journals of releases",
    )
    return found


def open_test(spec: ModelSpec, current: Release | None, version: int, as_of: datetime) -> Release:
    """The release with an A/B test in it. Raises `SpecError` where no request has the column that it is to be by."""
    brought = wiring().features.needs(spec.data.feature_service)
    if spec.ab_test.entity is not None and spec.ab_test.entity not in brought:
        raise SpecError(
            f"{spec.name}.toml: [ab_test].entity = {spec.ab_test.entity!r} is no column of a request, which are "
            f"{list(brought)}. Name one of them, or leave it out to test by example."
        )
    test = plan(spec.ab_test, current, version, as_of)
    return start_test(current, version=version, share=spec.ab_test.share, test=test, at=as_of)


def existing(spec: ModelSpec, release: Release | None) -> Release:
    """Raises `UnknownModel` where there is none."""
    if release is None:
        raise UnknownModel(f"{spec.name} has no release yet: run `retrain` for it first")
    return release


def change_release(
    spec: ModelSpec, decide: Callable[[Release | None], Release], *, action: str, reason: str
) -> Release:
    """One compare-and-swap; the same task of the same flow run again (a retry of the run) finds it done."""
    with wiring().records() as records:
        after = records.releases.change(spec.name, decide, action=action, reason=reason, **_asker(action))
    _log(action, after)
    return after


def _asker(action: str) -> dict[str, str]:
    """Who changes a release, and the name under which a retry of the run finds it done."""
    return {"actor": f"flow-run/{flow_run.id}", "request": f"flow-run/{flow_run.id}/{action}"}


def _log(action: str, release: Release) -> None:
    get_run_logger().info(
        "%s: champion %s, challenger %s at %.0f%%, previous %s",
        action,
        release.champion,
        release.challenger,
        100 * release.challenger_share,
        release.previous,
    )
