"""When an A/B test ends, and how; and how often it errs where both versions are equal."""

import math
from datetime import datetime, timedelta

import numpy as np
import pytest

from evergreen.ab_test import difference, follow, judge, plan, sample_ratio_p_value
from evergreen.errors import InvalidTransition, ReleaseConflict
from evergreen.release import end_test, promote, roll_back, start, start_test, step
from evergreen.sequential import confidence_sequence
from evergreen.spec import AbTestConfig, ReleaseConfig
from evergreen.types import AbTestDecision, AbTestFigures, Arm, LiveFigures, Release
from tests.factories import DAY, MAY, a_release, some_live_figures

CONFIG = AbTestConfig(min_days=5, max_days=10, min_rows=400)
GUARDS = ReleaseConfig(min_rows=100)
FALLS = (-0.02, -0.021, -0.019, -0.02, -0.0205)
RISES = (0.02, 0.021, 0.019, 0.02, 0.0205)
SCATTERED = (0.02, -0.02, 0.01, -0.012, 0.001)


def a_test(config: AbTestConfig = CONFIG, champion: int = 1, version: int = 2) -> Release:
    before = a_release(champion=champion)
    test = plan(config, before, version, MAY)
    return start_test(before, version=version, share=config.share, test=test, at=MAY)


def some_arms(
    days: tuple[float, ...] = FALLS,
    *,
    labelled: int = 500,
    entities: tuple[int, int] = (500, 510),
    entity_error: float = 0.0,
) -> AbTestFigures:
    champion, challenger = (
        Arm(version=number + 1, entities=count, rows=600, labelled=labelled, loss=0.5)
        for number, count in enumerate(entities)
    )
    return AbTestFigures(champion=champion, challenger=challenger, crossed=0, days=days, entity_error=entity_error)


def decide(
    figures: AbTestFigures, live: LiveFigures | None = None, config: AbTestConfig = CONFIG, at: datetime = MAY + 6 * DAY
) -> AbTestDecision:
    return judge(a_test(config), figures, live or some_live_figures(), GUARDS, at)


def test_a_test_splits_the_traffic_and_keeps_its_plan() -> None:
    release = a_test()

    assert (release.champion, release.challenger, release.challenger_share, release.revision) == (1, 2, 0.5, 2)
    assert release.test is not None
    assert (release.test.salt, release.test.started_at, release.test.min_days) == ("2/2", MAY, 5)


@pytest.mark.parametrize(
    "attempt",
    [
        lambda release: start(release, model="flight_delay", version=3, share=0.1, at=MAY),
        lambda release: start(release, model="flight_delay", version=3, share=1.0, at=MAY),
        lambda release: step(release, share=0.9, at=MAY),
        lambda release: promote(release, at=MAY),
        lambda release: start_test(release, version=3, share=0.5, test=release.test, at=MAY),
    ],
    ids=["a roll out", "blue-green", "a step", "a promotion", "another test"],
)
def test_while_a_test_runs_everybody_else_is_told(attempt: object) -> None:
    assert callable(attempt)
    with pytest.raises(
        InvalidTransition, match="an A/B test runs since 2013-05-01 00:00 and has the traffic to itself"
    ):
        attempt(a_test())


def test_a_roll_out_keeps_tests_out() -> None:
    rolling = a_release(challenger=2, share=0.1)

    with pytest.raises(
        InvalidTransition, match="version 2 is being rolled out, and a test needs the traffic to itself"
    ):
        start_test(rolling, version=3, share=0.5, test=plan(CONFIG, rolling, 3, MAY), at=MAY)


@pytest.mark.parametrize("release", [None, a_release(champion=2)])
def test_a_test_needs_a_champion_that_is_another_version(release: Release | None) -> None:
    with pytest.raises(InvalidTransition, match=r"no champion to test|against itself"):
        start_test(release, version=2, share=0.5, test=plan(CONFIG, release, 2, MAY), at=MAY)


def test_a_roll_back_ends_a_test_without_a_verdict() -> None:
    assert roll_back(a_test(), at=MAY + DAY) == a_release(revision=3, changed_at=MAY + DAY)


def test_without_a_test_there_is_nothing_to_judge_or_to_end() -> None:
    with pytest.raises(InvalidTransition, match="no A/B test runs that could be judged"):
        judge(a_release(challenger=2, share=0.1), some_arms(), some_live_figures(), GUARDS, MAY)
    with pytest.raises(InvalidTransition, match="no A/B test runs that could end"):
        end_test(a_release(challenger=2, share=0.1), promoted=True, at=MAY)


def test_a_proved_fall_promotes() -> None:
    decision = decide(some_arms())
    after = follow(a_test(), decision, MAY + 6 * DAY)

    assert decision.verdict == "promote"
    assert decision.low is not None
    assert decision.high is not None
    assert decision.low < decision.difference < decision.high < 0.0
    assert "that it falls is proved" in decision.reasons[0]
    assert (after.champion, after.previous, after.challenger, after.test) == (2, 1, None, None)


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (some_arms(FALLS[:4]), "the outcomes of 4 days are in, fewer than 5"),
        (some_arms(labelled=399), "399 outcomes on the side that has fewer, fewer than 400"),
        (some_arms(SCATTERED), "that it falls is not proved"),
        (some_arms(entity_error=0.01), "that it falls is not proved"),
    ],
)
def test_until_then_it_goes_on_and_says_what_it_waits_for(figures: AbTestFigures, reason: str) -> None:
    decision = decide(figures)

    assert decision.verdict == "go_on"
    assert reason in "; ".join(decision.reasons)
    assert follow(a_test(), decision, MAY) == a_test()


def test_a_proved_rise_keeps_the_champion_before_the_days_are_over() -> None:
    decision = decide(some_arms(RISES[:4]))

    assert decision.verdict == "keep"
    assert follow(a_test(), decision, MAY + DAY) == a_release(revision=3, changed_at=MAY + DAY)


def test_within_a_margin_a_rise_is_none() -> None:
    config = CONFIG.model_copy(update={"margin": 0.03})

    assert decide(some_arms(RISES), config=config).verdict == "promote"


def test_errors_and_latency_end_a_test_as_they_end_a_roll_out() -> None:
    slow = decide(some_arms(()), some_live_figures(p99_latency_ms=900.0))
    failing = decide(some_arms(()), some_live_figures().model_copy(update={"failed": 50}))

    assert (slow.verdict, failing.verdict) == ("keep", "keep")
    assert "p99 latency" in slow.reasons[0]
    assert decide(some_arms(()), some_live_figures(rows=99, p99_latency_ms=900.0)).verdict == "go_on"


def test_no_version_is_promoted_that_breaks_a_guardrail_however_few_its_rows_are() -> None:
    decision = decide(some_arms(), some_live_figures(rows=99, p99_latency_ms=900.0))

    assert decision.verdict == "go_on"
    assert "p99 latency" in decision.reasons[0]


def test_a_split_that_is_not_what_was_asked_for_ends_the_test_whatever_it_says() -> None:
    decision = decide(some_arms(entities=(500, 380)))

    assert decision.verdict == "inconclusive"
    assert "version 2 met 380 of 880 entities, 50% were to" in decision.reasons[0]
    assert follow(a_test(), decision, MAY).champion == 1


def test_a_test_that_runs_out_of_days_is_inconclusive_and_the_champion_stays() -> None:
    assert decide(some_arms(SCATTERED), at=MAY + 9.9 * DAY).verdict == "go_on"
    over = decide(some_arms(SCATTERED), at=MAY + 10 * DAY)

    assert over.verdict == "inconclusive"
    assert over.reasons[0] == "the test ran for [ab_test].max_days = 10"
    assert follow(a_test(), over, MAY).champion == 1


def test_a_verdict_about_another_revision_changes_nothing() -> None:
    decision = decide(some_arms())

    with pytest.raises(ReleaseConflict, match="judged at revision 2, but the release is at 3"):
        follow(roll_back(a_test(), at=MAY), decision, MAY)


def test_the_chi_square_of_a_split_is_the_textbooks() -> None:
    assert sample_ratio_p_value(0, 0, 0.5) == 1.0
    assert sample_ratio_p_value(500, 500, 0.5) == 1.0
    # 50 too many of 1,000: (50^2 / 500) * 2 = 10, and P(chi-square_1 > 10) = 0.001565
    assert sample_ratio_p_value(450, 550, 0.5) == pytest.approx(0.001565, abs=1e-6)
    assert sample_ratio_p_value(900, 100, 0.1) == 1.0


def test_entities_that_return_widen_the_interval_and_the_days_alone_are_its_narrowest() -> None:
    alone, wider = (difference(some_arms(entity_error=error), 0.95) for error in (0.0, 0.004))

    assert alone == confidence_sequence(FALLS, 0.95)
    assert wider.high - wider.low > alone.high - alone.low
    assert wider.mean == alone.mean


def test_split_checks_every_day_err_less_often_than_they_may() -> None:
    """A month of honest tests, looked at every day, as often as alpha says at the most."""
    draw, days, tests = np.random.default_rng(5), 28, 2_000
    alpha, share = 0.05, 0.3  # as strict as the default cannot be counted
    entities = draw.poisson(60, (tests, days))
    challengers = draw.binomial(entities, share).cumsum(axis=1)
    together = entities.cumsum(axis=1)
    worst = [
        min(
            sample_ratio_p_value(int(n - m), int(m), share)
            for n, m in zip(together[one], challengers[one], strict=True)
        )
        for one in range(tests)
    ]

    assert np.mean(np.array(worst) < alpha / days) <= alpha


def test_a_plan_needs_days_enough_to_promote() -> None:
    with pytest.raises(ValueError, match="no test could promote"):
        AbTestConfig(min_days=9, max_days=8)
    assert math.isclose(AbTestConfig().share, 0.5)
    assert timedelta(days=AbTestConfig().max_days) == 4 * timedelta(days=7)
