"""Test a version against the champion on people that each meet one of the two, and end the test when it is decided."""

from datetime import datetime

from prefect import flow

from evergreen.types import Release
from evergreen.wiring import wiring
from tasks.ab_test import begin_test, end_test, judge_test
from tasks.moment import moment
from tasks.release import current_release, mirror_aliases
from tasks.watch import record_outcomes


@flow(flow_run_name="ab-test-{model}")
def ab_test(
    model: str = "flight_delay",
    version: int | None = None,
    as_of: datetime | None = None,
    reason: str = "asked for by a person",
) -> Release:
    """Begin a test of `version`; without one, look at the test that runs (the scheduled default) and end it if it may.

    Args:
        model: Name of a file in `models/`; how it tests is the table `[ab_test]`.
        version: A version that passed its gate. While another test runs, or a version is rolled out, it is refused.
        as_of: Logical time of the change; empty means now.
        reason: Goes into the journal when a test begins.
    """
    spec = wiring().spec(model)
    at = moment(as_of)
    outcomes = None
    if version is not None:
        release = begin_test(spec, version, reason, at)
    else:
        outcomes = record_outcomes(spec, at, return_state=True)  # a challenger that fails goes back without them too
        decision = judge_test(spec, at)
        release = end_test(spec, decision, at) if decision and decision.verdict != "go_on" else current_release(spec)
    mirror_aliases(release)
    if outcomes is not None:
        outcomes.result()  # raises what kept them away
    return release
