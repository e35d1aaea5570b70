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

from evergreen.adapters.reconciler import reconcile, show
from evergreen.errors import ReleaseConflict, UnknownModel
from evergreen.release import promote, roll_back, start, step
from evergreen.rollout import judge, next_share
from evergreen.spec import ModelSpec
from evergreen.types import Finding, Release, ReleaseDecision
from evergreen.wiring import wiring

EVENT = "evergreen.release.reconciled"


@task
def start_canary(spec: ModelSpec, version: int, reason: str, as_of: datetime) -> Release:
    """Give a gated version its first share; with no champion it becomes champion at once.

    A version that was released before is left as it is: a run that was killed after this step finds it done, and one
    that a guardrail took back does not come in again.
    """
    with wiring().records() as records:
        released = {entry.after.challenger or entry.after.champion for entry in records.releases.journal(spec.name)}

    def begin(current: Release | None) -> Release:
        if current is not None and version in released:
            return current
        return start(current, model=spec.name, version=version, share=spec.release.steps[0], at=as_of)

    return _change(spec, begin, action="start", reason=reason)


@task(retries=2, retry_delay_seconds=1)
def judge_challenger(spec: ModelSpec, as_of: datetime) -> ReleaseDecision | None:
    """Look at what the challenger did, since its last step and day by day since its start; None when there is none."""
    from evergreen.monitoring.performance import live_figures
    from evergreen.monitoring.shadow import paired_days

    with wiring().records() as records:
        release = records.releases.current(spec.name)
        if release is None or release.challenger is None:
            return None
        since = records.releases.challenger_since(spec.name) or release.changed_at
        frame = records.predictions.since(spec.name, since, as_of)
    assert release.champion is not None  # a challenger without one would have become it
    task = spec.model.task
    days = {}  # what one number a row tells of two versions is known of binary models alone
    if task == "binary":
        days = paired_days(
            frame,
            champion=release.champion,
            challenger=release.challenger,
            as_of=as_of,
            min_label_share=spec.monitor.min_label_share,
        )
    frame = frame[frame["event_timestamp"] >= release.changed_at]
    champion, challenger = live_figures(frame, release.champion, task), live_figures(frame, release.challenger, task)
    decision = judge(release, champion, challenger, spec.release, as_of, list(days.values()))
    create_table_artifact(
        key="release", table=[check.model_dump() for check in decision.checks], description="; ".join(decision.reasons)
    )
    return decision


@task
def apply_decision(spec: ModelSpec, decision: ReleaseDecision, as_of: datetime) -> Release:
    """Do what was decided: the next share, all of the traffic, or back."""

    def change(current: Release | None) -> Release:
        release = _existing(spec, current)
        if release.revision != decision.revision:
            raise ReleaseConflict(
                f"{spec.name}: revision {decision.revision} was judged, but the release is at {release.revision} now. "
                "Nothing was changed; the next roll_out judges again."
            )
        if decision.action == "promote":
            return promote(release, at=as_of)
        if decision.action == "roll_back":
            return roll_back(release, at=as_of)
        return step(release, share=next_share(release, spec.release), at=as_of)

    return _change(spec, change, action=decision.action, reason="; ".join(decision.reasons))


@task(retries=2, retry_delay_seconds=1)
def current_release(spec: ModelSpec) -> Release:
    """The release as it is."""
    with wiring().records() as records:
        return _existing(spec, records.releases.current(spec.name))


@task
def roll_back_now(spec: ModelSpec, reason: str, as_of: datetime) -> Release:
    """Drop the challenger if there is one, else put the previous champion back."""
    return _change(
        spec, lambda current: roll_back(_existing(spec, current), at=as_of), action="roll_back", reason=reason
    )


@task
def promote_now(spec: ModelSpec, reason: str, as_of: datetime) -> Release:
    """Give the challenger all of the traffic without waiting for its dwell: a person's call."""
    return _change(spec, lambda current: promote(_existing(spec, current), at=as_of), action="promote", reason=reason)


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


def _existing(spec: ModelSpec, release: Release | None) -> Release:
    if release is None:
        raise UnknownModel(f"{spec.name} has no release yet: run `retrain` for it first")
    return release


def _change(spec: ModelSpec, decide: Callable[[Release | None], Release], *, action: str, reason: str) -> Release:
    """One compare-and-swap; the same task of the same flow run again (a retry of the run) finds it done."""
    with wiring().records() as records:
        after = records.releases.change(
            spec.name,
            decide,
            action=action,
            actor=f"flow-run/{flow_run.id}",
            reason=reason,
            request=f"flow-run/{flow_run.id}/{action}",
        )
    get_run_logger().info(
        "%s: champion %s, challenger %s at %.0f%%, previous %s",
        action,
        after.champion,
        after.challenger,
        100 * after.challenger_share,
        after.previous,
    )
    return after
