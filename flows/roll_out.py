"""Start a version, move the challenger on, give it everything, or take it back."""

from datetime import datetime
from typing import Literal

from prefect import flow

from evergreen.types import Release
from evergreen.wiring import wiring
from tasks.moment import moment
from tasks.release import (
    apply_decision,
    current_release,
    judge_challenger,
    mirror_aliases,
    promote_now,
    roll_back_now,
    start_now,
)
from tasks.watch import record_outcomes


@flow(flow_run_name="roll-out-{model}-{action}")
def roll_out(
    model: str = "flight_delay",
    action: Literal["advance", "promote", "rollback", "start"] = "advance",
    as_of: datetime | None = None,
    reason: str = "asked for by a person",
    version: int | None = None,
    again: bool = False,
) -> Release:
    """Advance on evidence (the scheduled default), or do what a person says.

    Args:
        model: Name of a file in `models/`.
        action: `advance` judges the challenger and takes the next step if it may; `promote` gives it everything now;
            `rollback` drops the challenger, or puts the previous champion back where there is none. While an A/B test runs
            `advance` does nothing, `promote` is refused, and `rollback` ends the test. `start` gives `version` its first
            share, as `retrain` does by itself: a variant, or one whose approval came late.
        as_of: Logical time of the change; empty means now.
        reason: Goes into the journal with `start`, `promote` and `rollback`.
        version: A version that passed its gate, to `start`.
        again: `rollback` goes one further right after another, and `start` takes a version that was taken back.
    """
    spec = wiring().spec(model)
    at = moment(as_of)
    outcomes = None
    if action == "rollback":
        release = roll_back_now(spec, reason, at, again)
    elif action == "start":
        release = start_now(spec, version, reason, at, again)
    elif action == "promote":
        release = promote_now(spec, reason, at)
    else:
        outcomes = record_outcomes(spec, at, return_state=True)  # a challenger that fails goes back without them too
        decision = judge_challenger(spec, at)
        release = (
            apply_decision(spec, decision, at) if decision and decision.action != "hold" else current_release(spec)
        )
    mirror_aliases(release)
    if outcomes is not None:
        outcomes.result()  # raises what kept them away
    return release
