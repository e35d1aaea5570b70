"""A person's word between the gate and the traffic, where the model's file asks for it.

The run pauses; whoever opens it in Prefect's UI answers a form (*Resume*). Nobody's answer in time is a no: the version
stays registered and the champion stays. `retrain` with the same `as_of` finds the same version and asks again; a yes that comes
later is `roll_out` with action=start.
"""

from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Running

from evergreen.spec import ModelSpec
from evergreen.types import ModelVersion

POLL_SECONDS = 5


class Approval(RunInput):
    """The form."""

    approve: bool
    reason: str = ""


def approval(spec: ModelSpec, version: ModelVersion) -> Approval:
    """What a person says about a version that passed; yes at once where the file asks nobody. Called inside a flow run."""
    if spec.release.approval == "auto":
        return Approval(approve=True, reason="no person is asked")
    form = Approval.with_initial_data(
        description=f"**{spec.name} version {version.version}** passed its gate. May it take traffic? "
        f"Its verdict and its card are among this run's artifacts. No answer within {spec.release.approval_hours:g} h is a no.",
        reason="",
    )
    seconds = int(spec.release.approval_hours * 3600)
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=max(seconds, 1), poll_interval=POLL_SECONDS)
    except FlowPauseTimeout:
        _run_on()
        answer = Approval(approve=False, reason=f"nobody answered within {spec.release.approval_hours:g} h")
    said = "approved" if answer.approve else "not approved"
    get_run_logger().info("version %d is %s: %s", version.version, said, answer.reason or "no reason was given")
    return answer


def _run_on() -> None:
    """Prefect holds a run that nobody resumed for paused still, and would call it failed at its end."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(str(flow_run.id)), Running(), force=True)
