from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from evergreen.errors import InvalidTransition
from evergreen.release import judge, next_share, promote, roll_back, start, step
from evergreen.spec import ReleaseConfig
from evergreen.types import Release
from tests.factories import DAY, HOUR, MAY, a_release, some_live_figures

CONFIG = ReleaseConfig(steps=(0.1, 0.5, 1.0), dwell_hours=24, min_rows=100, min_live_labels=200)
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
    assert next_share(shadow, ReleaseConfig()) == 0.05
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
        ("judge", lambda release: judge(release, None, some_live_figures(), CONFIG, LATER)),
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
        if version in (before.champion, before.challenger):
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


CANARY = a_release(champion=1, challenger=2, share=0.1)


def test_a_challenger_that_behaves_takes_the_next_step() -> None:
    decision = judge(CANARY, some_live_figures(version=1), some_live_figures(), CONFIG, LATER)

    assert decision.action == "advance"
    assert decision.reasons[0] == "6 checks hold; next share 50%"
    assert all(check.rule and check.reason for check in decision.checks)


def test_the_last_step_is_the_promotion() -> None:
    decision = judge(
        a_release(challenger=2, share=0.5), some_live_figures(version=1), some_live_figures(), CONFIG, LATER
    )

    assert decision.action == "promote"


def test_too_few_answers_hold_even_when_they_look_terrible() -> None:
    few = some_live_figures(rows=99, log_loss=9.0, p99_latency_ms=9_000)

    decision = judge(CANARY, some_live_figures(version=1), few, CONFIG, LATER)

    assert decision.action == "hold"
    assert decision.reasons == ("version 2 gave 99 answers at this step, fewer than 100",)


def test_a_dwell_that_is_not_over_holds() -> None:
    decision = judge(CANARY, some_live_figures(version=1), some_live_figures(), CONFIG, MAY + 23.9 * HOUR)

    assert decision.action == "hold"
    assert decision.reasons == ("23.9 h at a share of 10%, less than 24 h",)


def test_a_slow_challenger_is_rolled_back_without_waiting_for_its_dwell() -> None:
    slow = some_live_figures(p99_latency_ms=250.1)

    decision = judge(CANARY, some_live_figures(version=1), slow, CONFIG, MAY + HOUR)

    assert decision.action == "roll_back"
    assert decision.reasons == ("version 2: p99 latency 250.1 ms, above 250 ms",)


def test_a_challenger_that_is_clearly_worse_on_live_outcomes_is_rolled_back() -> None:
    worse = some_live_figures(log_loss=0.76)

    decision = judge(CANARY, some_live_figures(version=1, log_loss=0.50), worse, CONFIG, LATER)

    assert decision.action == "roll_back"
    assert decision.reasons == (
        "version 2: live log loss 0.760 on 800 rows, champion 0.500 on 800, above the rise of 0.250 allowed",
    )


def test_a_challenger_that_fails_on_rows_is_rolled_back_without_waiting() -> None:
    failing = some_live_figures(rows=1_000).model_copy(update={"failed": 2})

    decision = judge(CANARY, some_live_figures(version=1), failing, CONFIG, MAY + HOUR)

    assert decision.action == "roll_back"
    assert decision.reasons == ("version 2 failed on 2 of 1,000 rows, above a share of 0.001",)


def test_days_that_prove_a_rise_roll_back_even_where_the_step_has_few_rows() -> None:
    few = some_live_figures(rows=1, labelled=0)

    decision = judge(CANARY, some_live_figures(version=1), few, CONFIG, LATER, [0.05, 0.06, 0.05, 0.055])

    assert decision.action == "roll_back"
    assert "loss changes by +0.0537 a row over 4 days of the same rows" in decision.reasons[0]


@pytest.mark.parametrize("days", [[], [9.0], [0.05, -0.04, 0.06, -0.03], [-0.05, -0.06, -0.05, -0.055]])
def test_days_that_prove_no_rise_hold_nobody_up(days: list[float]) -> None:
    assert judge(CANARY, some_live_figures(version=1), some_live_figures(), CONFIG, LATER, days).action == "advance"


def test_a_rise_within_what_is_allowed_is_none() -> None:
    config = CONFIG.model_copy(update={"max_proved_loss": 0.1})

    decision = judge(
        CANARY, some_live_figures(version=1), some_live_figures(), config, LATER, [0.05, 0.06, 0.05, 0.055]
    )

    assert decision.action == "advance"


@pytest.mark.parametrize(("champion_labels", "challenger_labels"), [(800, 199), (199, 800), (0, 0)])
def test_live_outcomes_count_only_when_both_sides_have_enough(champion_labels: int, challenger_labels: int) -> None:
    decision = judge(
        CANARY,
        some_live_figures(version=1, labelled=champion_labels),
        some_live_figures(labelled=challenger_labels, log_loss=9.0),
        CONFIG,
        LATER,
    )

    assert decision.action == "advance"
    assert any("not judged yet" in check.reason for check in decision.checks)


def test_a_challenger_whose_champion_answered_nothing_is_still_judged_on_the_rest() -> None:
    assert judge(CANARY, None, some_live_figures(), CONFIG, LATER).action == "advance"


@given(
    share=st.sampled_from([0.1, 0.3, 0.5, 0.9]),
    rows=st.integers(0, 300),
    labelled=st.integers(0, 500),
    log_loss=st.floats(0.0, 5.0),
    latency=st.floats(0.0, 600.0),
    hours=st.floats(-5.0, 60.0),
)
def test_a_challenger_moves_on_only_when_every_check_holds(
    share: float, rows: int, labelled: int, log_loss: float, latency: float, hours: float
) -> None:
    challenger = some_live_figures(rows=rows, labelled=labelled, log_loss=log_loss, p99_latency_ms=latency)

    decision = judge(
        a_release(challenger=2, share=share), some_live_figures(version=1), challenger, CONFIG, MAY + hours * HOUR
    )

    assert (decision.action in ("advance", "promote")) == all(check.passed for check in decision.checks)
    assert decision.reasons
    if decision.action in ("hold", "roll_back"):
        failed = {check.reason for check in decision.checks if not check.passed}
        assert set(decision.reasons) <= failed


@given(steps=st.sets(st.floats(0.01, 0.99), max_size=5))
def test_following_the_steps_ends_at_everything(steps: set[float]) -> None:
    config = ReleaseConfig(steps=(*sorted(steps), 1.0))
    release = a_release(challenger=2, share=0.001)

    for _ in range(len(config.steps)):
        following = next_share(release, config)
        if following == 1.0:
            break
        release = step(release, share=following, at=LATER)

    assert next_share(release, config) == 1.0
