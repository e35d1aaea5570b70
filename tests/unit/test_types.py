"""The nouns that travel survive the journey and refuse nonsense."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evergreen.types import Check, GateDecision, Release, Scores, Window

NOON = datetime(2013, 4, 1, 12, tzinfo=UTC)


def test_a_window_is_in_utc_and_excludes_its_end() -> None:
    local = timezone(timedelta(hours=-4))
    window = Window(start=NOON.astimezone(local), end=NOON + timedelta(hours=1))
    assert window.start.tzinfo is UTC
    assert NOON in window
    assert window.end not in window


@pytest.mark.parametrize("end", [NOON, NOON - timedelta(seconds=1)])
def test_a_window_ends_after_its_start(end: datetime) -> None:
    with pytest.raises(ValidationError, match="not after its start"):
        Window(start=NOON, end=end)


def test_a_naive_moment_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Window(start=datetime(2013, 4, 1), end=NOON)  # noqa: DTZ001


def test_an_infinite_figure_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Scores(rows=1, figures={"log_loss": float("inf")})


@given(st.lists(st.booleans(), max_size=8))
def test_a_gate_passes_when_every_check_does_and_says_why_not(verdicts: list[bool]) -> None:
    checks = tuple(
        Check(name=str(i), passed=passed, figure=0.0, rule="", reason=f"reason {i}")
        for i, passed in enumerate(verdicts)
    )
    decision = GateDecision(checks=checks)
    assert decision.passed == all(verdicts)
    assert len(decision.reasons) == verdicts.count(False)
    assert GateDecision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize(
    "wrong", [{"challenger_share": 0.1}, {"champion": 2, "challenger": 2, "challenger_share": 0.5}]
)
def test_a_release_has_one_version_a_role(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Release.model_validate({"model": "m", "changed_at": NOON} | wrong)
