"""What a challenger may do next, by what it did while people were answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import ReleaseConflict
from evergreen.release import start, step
from evergreen.rollout import follow, judge, next_share
from evergreen.spec import ReleaseConfig
from evergreen.types import ReleaseDecision
from tests.factories import DAY, HOUR, MAY, a_release, some_live_figures

CONFIG = ReleaseConfig(steps=(0.1, 0.5, 1.0), dwell_hours=24, min_rows=100, min_live_labels=200, proof="guardrails")
PROVING = CONFIG.model_copy(update={"proof": "non_inferior", "proof_margin": 0.02, "proof_days": 10.0})
LAST = a_release(challenger=2, share=0.5)
EQUAL = [0.001, -0.002, 0.0, 0.002, -0.001, 0.001]
SCATTERED = [0.03, -0.03, 0.02, -0.02]
LATER = MAY + DAY
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


def test_out_of_the_shadow_the_next_share_is_the_first_step() -> None:
    assert next_share(a_release(challenger=2, share=0.0), ReleaseConfig()) == 0.05


def test_the_default_steps_are_walked_one_by_one_and_each_holds_until_its_dwell_and_its_rows_are_over() -> None:
    config, at = ReleaseConfig(), MAY
    release = start(a_release(champion=1), model="flight_delay", version=2, share=config.steps[0], at=at)
    walked, actions = [release.challenger_share], []

    while release.challenger is not None:
        over = at + 24 * HOUR
        few, enough = some_live_figures(rows=99), some_live_figures(rows=100)
        early = judge(release, some_live_figures(version=1), enough, config, over - HOUR, EQUAL, MAY)
        unseen = judge(release, some_live_figures(version=1), few, config, over, EQUAL, MAY)
        decision = judge(release, some_live_figures(version=1), enough, config, over, EQUAL, MAY)
        assert follow(release, early, config, over) == follow(release, unseen, config, over) == release
        assert "23.0 h" in early.reasons[0]
        assert "99 answers" in unseen.reasons[0]
        release, at = follow(release, decision, config, over), over
        walked.append(release.challenger_share if release.challenger else 1.0)
        actions.append(decision.action)

    assert walked == [0.0, 0.05, 0.25, 0.5, 1.0]
    assert actions == ["advance", "advance", "advance", "promote"]
    assert (release.champion, release.previous, at) == (2, 1, MAY + 4 * DAY)


def decide(days: list[float], config: ReleaseConfig = PROVING, waited_days: float = 5.0) -> ReleaseDecision:
    now = LATER + waited_days * DAY
    return judge(LAST, some_live_figures(version=1), some_live_figures(), config, now, days, now - waited_days * DAY)


def test_all_of_the_traffic_takes_proof_on_the_same_rows() -> None:
    assert decide(EQUAL).action == "promote"
    held = decide(SCATTERED)

    assert held.action == "hold"
    assert "over 4 days of the same rows" in held.reasons[0]
    assert "that it rises by less than 0.0200 is not proved yet" in held.reasons[0]


def test_no_outcomes_are_no_proof() -> None:
    assert decide([]).action == "hold"


def test_a_step_before_the_last_takes_no_proof() -> None:
    decision = judge(CANARY, some_live_figures(version=1), some_live_figures(), PROVING, LATER, SCATTERED, MAY)

    assert decision.action == "advance"
    assert "proved_non_inferior" not in {check.name for check in decision.checks}


def test_without_a_shadow_there_is_no_proof_to_be_had_and_guardrails_decide() -> None:
    assert decide([], PROVING.model_copy(update={"shadow": False})).action == "promote"


@pytest.mark.parametrize(("unproved", "action"), [("hold", "hold"), ("roll_back", "roll_back")])
def test_after_the_longest_wait_it_stays_and_says_so_or_goes_back(unproved: str, action: str) -> None:
    config = PROVING.model_copy(update={"unproved": unproved})

    assert decide(SCATTERED, config, waited_days=9.9).action == "hold"
    over = decide(SCATTERED, config, waited_days=10.0)

    assert over.action == action
    assert "after 10 days of waiting" in over.reasons[0]


def test_proof_that_comes_late_promotes_all_the_same() -> None:
    assert decide(EQUAL, waited_days=50.0).action == "promote"


@pytest.mark.parametrize(("action", "share", "challenger"), [("advance", 0.5, 2), ("roll_back", 0.0, None)])
def test_a_decision_is_followed_on_the_release_it_is_about(action: str, share: float, challenger: int | None) -> None:
    decision = ReleaseDecision.model_validate({"revision": 1, "action": action, "checks": [], "reasons": []})

    after = follow(CANARY, decision, CONFIG, LATER)

    assert (after.challenger, after.challenger_share, after.revision) == (challenger, share, 2)
    with pytest.raises(ReleaseConflict, match="revision 1 was judged, but the release is at 2"):
        follow(after, decision, CONFIG, LATER)
