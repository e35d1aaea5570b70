"""Move the challenger on, give it everything, or take it back."""

from datetime import datetime
from typing import Literal

from prefect import flow

from evergreen.types import Release
from evergreen.wiring import wiring
from tasks.moment import moment
from tasks.release import apply_decision, current_release, judge_challenger, mirror_aliases, promote_now, roll_back_now
from tasks.watch import record_outcomes


@flow(flow_run_name="roll-out-{model}-{action}")
def roll_out(
    model: str = "flight_delay",
    action: Literal["advance", "promote", "rollback"] = "advance",
    as_of: datetime | None = None,
    reason: str = "asked for by a person",
) -> Release:
    """Advance on evidence (the scheduled default), or do what a person says.

    Args:
        model: Name of a file in `models/`.
        action: `advance` judges the challenger and takes the next step if it may; `promote` gives it everything now;
            `rollback` drops the challenger, or puts the previous champion back where there is none. While an A/B test runs
            `advance` does nothing, `promote` is refused, and `rollback` ends the test.
        as_of: Logical time of the change; empty means now.
        reason: Goes into the journal with `promote` and `rollback`.
    """
    spec = wiring().spec(model)
    at = moment(as_of)
    if action == "rollback":
        release = roll_back_now(spec, reason, at)
    elif action == "promote":
        release = promote_now(spec, reason, at)
    else:
        record_outcomes(spec, at)
        decision = judge_challenger(spec, at)
        release = (
            apply_decision(spec, decision, at) if decision and decision.action != "hold" else current_release(spec)
        )
    mirror_aliases(release)
    return release
