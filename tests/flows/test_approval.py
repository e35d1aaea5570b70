"""A person's yes, no and silence, through Prefect's own form."""

import contextvars
import threading
import time
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import flow_run

import tasks.approval
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec, load_spec
from tasks.approval import approval
from tests.factories import a_model_version

SPEC = load_spec(ROOT / "models" / "flight_delay.toml")


def asking(hours: float, mode: str = "manual") -> ModelSpec:
    release = SPEC.release.model_copy(update={"approval": mode, "approval_hours": hours})
    return SPEC.model_copy(update={"release": release})


RUNS: list[UUID] = []
"""Newest last; a flow's parameters are copied, so it cannot tell the test by them."""


@flow
def ask(spec: ModelSpec) -> tuple[bool, str]:
    """Asks, and tells who runs."""
    RUNS.append(UUID(str(flow_run.id)))
    answer = approval(spec, a_model_version())
    return answer.approve, answer.reason


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.approval, "POLL_SECONDS", 1)


def answer_when_paused(runs: int, given: dict[str, Any]) -> None:
    """Press *Resume* in run number `runs` until it goes on: the form is there a moment after the pause."""
    paused = False
    with get_client(sync_client=True) as client:
        for _ in range(600):
            state = client.read_flow_run(RUNS[runs]).state if len(RUNS) > runs else None
            if state is not None and state.is_paused():
                paused = True
                with suppress(PrefectHTTPStatusError):
                    client.resume_flow_run(RUNS[runs], run_input=given)
            elif paused:
                return
            time.sleep(0.1)


@pytest.mark.parametrize("approve", [True, False])
def test_a_person_says_yes_or_no(prefect_api: str, approve: bool) -> None:
    given = {"approve": approve, "reason": "looked at it"}
    settings = contextvars.copy_context()  # a thread of its own would look for another server
    person = threading.Thread(target=settings.run, args=(answer_when_paused, len(RUNS), given))
    person.start()

    said = ask(asking(hours=0.02))

    person.join()
    assert said == (approve, "looked at it")


def test_nobodys_answer_in_time_is_a_no_and_the_run_ends_as_any_other(prefect_api: str) -> None:
    assert ask(asking(hours=2 / 3600)) == (False, f"nobody answered within {2 / 3600:g} h")

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(RUNS[-1]).state
    assert state is not None
    assert (state.name, state.message) == ("Completed", None)


def test_where_nobody_is_asked_it_is_a_yes_at_once() -> None:
    assert approval(asking(hours=1, mode="auto"), a_model_version()).approve
