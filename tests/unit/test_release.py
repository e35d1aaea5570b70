from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evergreen.errors import InvalidTransition
from evergreen.release import need_challenger, promote, roll_back, start, step
from evergreen.types import Release
from tests.factories import DAY, HOUR, MAY, a_release

LATER = MAY + DAY


def test_the_first_version_becomes_champion_at_once() -> None:
    release = start(None, model="flight_delay", version=1, share=0.1, at=MAY)

    assert release == a_release(champion=1, revision=1)


def test_the_next_version_becomes_challenger_at_its_share() -> None:
    release = start(a_release(champion=1), model="flight_delay", version=2, share=0.1, at=LATER)

    assert release == a_release(champion=1, challenger=2, share=0.1, revision=2, changed_at=LATER)


def test_a_newer_version_supersedes_the_open_challenger() -> None:
    release = start(
        a_release(champion=1, challenger=2, share=0.5), model="flight_delay", version=3, share=0.1, at=LATER
    )

    assert (release.champion, release.challenger, release.challenger_share) == (1, 3, 0.1)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_an_older_version_does_not_take_the_place_of_a_newer_challenger(share: float) -> None:
    open_release = a_release(champion=1, challenger=9, share=0.5)

    with pytest.raises(InvalidTransition, match=r"challenger 9 at 50%.*version 5 is older.*Wait until version 9"):
        start(open_release, model="flight_delay", version=5, share=share, at=LATER)


def test_a_first_step_of_everything_makes_the_version_champion() -> None:
    release = start(a_release(champion=1, challenger=2), model="flight_delay", version=3, share=1.0, at=LATER)

    assert release == a_release(champion=3, previous=1, revision=2, changed_at=LATER)


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_that_serves_cannot_be_started_again(version: int) -> None:
    with pytest.raises(InvalidTransition, match=f"version {version} serves already"):
        start(a_release(champion=1, challenger=2), model="flight_delay", version=version, share=0.1, at=LATER)


def test_a_challenger_may_start_in_the_shadow_and_step_out_of_it() -> None:
    shadow = start(a_release(champion=1), model="flight_delay", version=2, share=0.0, at=LATER)

    assert (shadow.challenger, shadow.challenger_share) == (2, 0.0)
    assert step(shadow, share=0.05, at=LATER).challenger_share == 0.05


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_the_traffic_is_refused(share: float) -> None:
    with pytest.raises(InvalidTransition, match="share"):
        start(a_release(), model="flight_delay", version=2, share=share, at=LATER)


def test_a_step_gives_the_challenger_more_and_its_dwell_starts_again() -> None:
    release = step(a_release(champion=1, challenger=2, share=0.1, previous=9), share=0.5, at=LATER)

    assert release == a_release(champion=1, challenger=2, share=0.5, previous=9, revision=2, changed_at=LATER)


@pytest.mark.parametrize("share", [0.05, 0.1, 1.0, 1.5])
def test_a_step_that_does_not_rise_or_takes_everything_is_refused(share: float) -> None:
    with pytest.raises(InvalidTransition, match="a step must rise"):
        step(a_release(challenger=2, share=0.1), share=share, at=LATER)


def test_a_promotion_keeps_the_old_champion_as_previous() -> None:
    assert promote(a_release(champion=1, challenger=2), at=LATER) == a_release(
        champion=2, previous=1, revision=2, changed_at=LATER
    )


def test_rolling_back_an_open_challenger_leaves_champion_and_previous_alone() -> None:
    release = roll_back(a_release(champion=2, challenger=3, previous=1), at=LATER)

    assert release == a_release(champion=2, previous=1, revision=2, changed_at=LATER)


def test_rolling_back_after_a_promotion_restores_the_champion_before() -> None:
    canary = a_release(champion=1, challenger=2)

    restored = roll_back(promote(canary, at=LATER), at=LATER + HOUR)

    assert restored == a_release(champion=1, revision=3, changed_at=LATER + HOUR)


def test_what_was_rolled_back_does_not_come_in_again_by_a_second_roll_back() -> None:
    restored = roll_back(a_release(champion=2, previous=1), at=LATER)

    with pytest.raises(InvalidTransition, match="no previous champion to roll back to"):
        roll_back(restored, at=LATER)


@pytest.mark.parametrize(
    ("action", "attempt"),
    [
        ("step", lambda release: step(release, share=0.5, at=LATER)),
        ("promote", lambda release: promote(release, at=LATER)),
        ("judge", lambda release: need_challenger(release, "judge")),
    ],
)
def test_without_a_challenger_there_is_nothing_to_step_promote_or_judge(
    action: str, attempt: Callable[[Release], object]
) -> None:
    with pytest.raises(InvalidTransition, match=f"no challenger to {action}"):
        attempt(a_release(champion=1))


class AnyReleaseHistory(RuleBasedStateMachine):
    """Law 3: whatever is done in whatever order, one champion, at most one challenger, a revision a change."""

    def __init__(self) -> None:
        super().__init__()
        self.release: Release | None = None
        self.changes = 0
        self.hours = 0

    def change(self, after: Release) -> None:
        self.release = after
        self.changes += 1

    @property
    def now(self) -> Release:
        assert self.release is not None
        return self.release

    def tick(self) -> timedelta:
        self.hours += 1
        return self.hours * HOUR

    @initialize(version=st.integers(1, 9))
    def the_first(self, version: int) -> None:
        self.change(start(None, model="flight_delay", version=version, share=0.1, at=MAY))

    @rule(version=st.integers(1, 9), share=st.sampled_from([0.1, 0.5, 1.0]))
    def another(self, version: int, share: float) -> None:
        before = self.now
        if version in (before.champion, before.challenger) or version < (before.challenger or 0):
            with pytest.raises(InvalidTransition):
                start(before, model="flight_delay", version=version, share=share, at=MAY)
            return
        self.change(start(before, model="flight_delay", version=version, share=share, at=MAY + self.tick()))

    @precondition(lambda self: self.now.challenger is not None)
    @rule(share=st.floats(0.01, 0.99))
    def a_step(self, share: float) -> None:
        before = self.now
        if share <= before.challenger_share:
            with pytest.raises(InvalidTransition):
                step(before, share=share, at=MAY)
            return
        self.change(step(before, share=share, at=MAY + self.tick()))
        assert self.now.champion == before.champion

    @precondition(lambda self: self.now.challenger is not None)
    @rule()
    def a_promotion_and_its_roll_back(self) -> None:
        before = self.now
        promoted = promote(before, at=MAY + self.tick())
        restored = roll_back(promoted, at=MAY + self.tick())
        assert (promoted.champion, promoted.previous) == (before.challenger, before.champion)
        assert restored.champion == before.champion
        self.change(promoted)

    @rule()
    def a_roll_back(self) -> None:
        before = self.now
        if before.challenger is None and before.previous is None:
            with pytest.raises(InvalidTransition):
                roll_back(before, at=MAY)
            return
        self.change(roll_back(before, at=MAY + self.tick()))
        assert self.now.challenger is None
        assert self.now.champion == (before.champion if before.challenger is not None else before.previous)

    @invariant()
    def one_champion_and_at_most_one_challenger(self) -> None:
        if self.release is None:
            return
        assert self.release.champion is not None
        assert self.release.challenger != self.release.champion
        assert self.release.previous != self.release.champion
        assert (self.release.challenger is None) == (self.release.challenger_share == 0.0)
        assert self.release.challenger_share < 1.0

    @invariant()
    def a_revision_a_change(self) -> None:
        assert self.release is None or self.release.revision == self.changes


TestAnyReleaseHistory = AnyReleaseHistory.TestCase
