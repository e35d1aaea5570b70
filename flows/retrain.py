"""Train a successor, judge it, register it, and start its canary.

Started by a person from the Prefect UI, by the schedule, or by the event `evergreen.drift.detected` (see `prefect.yaml`).
Killed anywhere and run again it goes on: the training set is addressed by its content, training resumes from its
checkpoint, and the same candidate registers as the same version.
"""

from datetime import datetime
from typing import Literal

from prefect import flow

from evergreen.types import Abandoned, Cause, Outcome, Remedy
from evergreen.wiring import wiring
from tasks.admission import ask, finish, held
from tasks.approval import approval
from tasks.evidence import show_evidence
from tasks.features import refresh_features
from tasks.gate import evaluate_candidate, evaluate_champion, judge, measure
from tasks.moment import moment
from tasks.parity import check_parity
from tasks.plots import draw
from tasks.registry import register
from tasks.release import kept_out, mirror_aliases, start_canary
from tasks.remedy import baselines_by, candidate_by, spec_by
from tasks.training import build_training_set
from tasks.verdict import show_verdict


@flow(flow_run_name="retrain-{model}")
def retrain(
    model: str = "flight_delay",
    as_of: datetime | None = None,
    cause: Cause = Cause.PERSON,
    episode: str | None = None,
    remedy: Remedy = Remedy.RETRAIN,
) -> Outcome:
    """Train a candidate on what was known at `as_of`, judge it, and start its canary if it passes.

    Args:
        model: Name of a file in `models/`.
        as_of: The moment whose knowledge may be used; empty means now.
        cause: Why; only retrains asked for by alarms are held back by the cooldown.
        episode: The stretch of drift this answers; at most one retrain each.
        remedy: How the candidate is made: a new network (after a search for better values), or the champion's, tuned
            further or recalibrated.
    """
    spec = wiring().spec(model)
    request = ask(spec, cause, episode, moment(as_of), remedy)
    if request.status != "admitted":
        verdict: Literal["suppressed", "done"] = "done" if request.status == "done" else "suppressed"
        return Outcome(model=model, verdict=verdict, reasons=(request.reason,), request=request)
    with held(request) as account:
        refresh_features(spec, request.as_of)
        spec = spec_by(spec, remedy, request.as_of, account)
        training_set = build_training_set(spec, request.as_of)
        candidate = candidate_by(spec, remedy, training_set, account)
        if isinstance(candidate, Abandoned):
            closed = finish(request, None, candidate.reason)
            return Outcome(model=model, verdict="abandoned", reasons=(candidate.reason,), request=closed)
        baselines = baselines_by(spec, remedy, training_set)

        evaluation = evaluate_candidate(spec, candidate, training_set)
        champion = evaluate_champion(spec, training_set)  # scored again now, on the same rows
        footprint = measure(candidate, training_set)
        parity = check_parity(spec, request.as_of)
        decision = judge(evaluation, champion, baselines, footprint, parity, spec.gate)

        # Refusals are recorded too, and have a page.
        version = register(spec, candidate, evaluation, champion, baselines, decision, cause)
        draw(spec, candidate, evaluation, champion, version)
        show_verdict(spec, version, cause, candidate, baselines, footprint, parity)
        release = None
        answer = approval(spec, version) if decision.passed else None
        if answer is not None and answer.approve:
            release = start_canary(spec, version.version, f"passed the gate, asked for by {cause}", request.as_of)
            mirror_aliases(release)
        outcome = "passed" if decision.passed else "refused"
        show_evidence(spec, request, training_set, version, decision, release)
        closed = finish(request, version.version, f"version {version.version} {outcome}")
    reasons = decision.reasons if answer is None or answer.approve else (f"not approved: {answer.reason}",)
    reasons += kept_out(release, version.version)
    return Outcome(model=model, verdict=outcome, reasons=reasons, request=closed, version=version, release=release)
