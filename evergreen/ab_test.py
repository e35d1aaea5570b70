"""The A/B test: which of two versions is better where each entity meets only one of them?

A judgement over what both arms did; no clock, no database. It may be asked as often as one likes: the interval holds at all
looks together. How a test begins and ends is `release.py`'s; `tasks/ab_test.py` calls both. To add a guardrail, write a
function returning a `Check` and list it in `judge`.
"""

import math
from datetime import datetime, timedelta
from typing import Literal

from evergreen.errors import InvalidTransition, ReleaseConflict
from evergreen.release import end_test, told
from evergreen.rollout import errors, latency
from evergreen.sequential import Interval, confidence_sequence, reach
from evergreen.spec import AbTestConfig, ReleaseConfig
from evergreen.types import AbTest, AbTestDecision, AbTestFigures, Check, LiveFigures, Release


def plan(config: AbTestConfig, release: Release | None, version: int, at: datetime) -> AbTest:
    """What a test of `version` that begins now will be judged by; its salt is the release's next revision."""
    keys = config.model_dump(exclude={"share"})
    return AbTest(salt=f"{version}/{release.revision + 1 if release else 1}", started_at=at, **keys)


def judge(
    release: Release, figures: AbTestFigures, live: LiveFigures, config: ReleaseConfig, now: datetime
) -> AbTestDecision:
    """How the test stands. `live` is what the challenger did since it began, `config` has the guardrails on it.

    A split that is not as it should be ends the test at once, since then nothing else can be believed; so do errors,
    latency and a proved rise in loss, for the champion. A promotion waits for `min_days` and `min_rows`. After `max_days` the
    test is over in any case. Raises `InvalidTransition` where none runs.
    """
    test = release.test
    if test is None:
        raise InvalidTransition(f"{told(release)}; no A/B test runs that could be judged")
    found = difference(figures, test.confidence)
    split = _sample_ratio(figures, release.challenger_share, test)
    guardrails = (errors(live, config), latency(live, config))
    enough, days = _enough_rows(figures, test), _enough_days(figures, test)
    worse, better = _not_worse(found, test), _better(found, test)
    checks = (split, *guardrails, worse, enough, days, better)
    verdict: Literal["go_on", "promote", "keep", "inconclusive"] = "go_on"
    broken = [check for check in (*guardrails, worse) if not check.passed]
    waiting = [check for check in (enough, days, better) if not check.passed]
    reasons = [check.reason for check in (*broken, *waiting)]
    if not split.passed:
        verdict, reasons = "inconclusive", [split.reason]
    elif broken and (live.rows >= config.min_rows or not worse.passed):
        verdict, reasons = "keep", [check.reason for check in broken]
    elif not waiting and not broken:
        verdict, reasons = "promote", [better.reason]
    elif now - test.started_at >= timedelta(days=test.max_days):
        verdict = "inconclusive"
        reasons = [f"the test ran for [ab_test].max_days = {test.max_days}", *reasons]
    return AbTestDecision(
        revision=release.revision,
        verdict=verdict,
        difference=found.mean,
        low=found.low if math.isfinite(found.low) else None,
        high=found.high if math.isfinite(found.high) else None,
        checks=checks,
        reasons=tuple(reasons),
    )


def follow(release: Release, decision: AbTestDecision, at: datetime) -> Release:
    """The verdict carried out. Raises `ReleaseConflict` where the release is not the one that was judged."""
    if release.revision != decision.revision:
        raise ReleaseConflict(
            f"{release.model}: the test was judged at revision {decision.revision}, but the release is at "
            f"{release.revision} now. Nothing was changed; the next look judges again."
        )
    return release if decision.verdict == "go_on" else end_test(release, promoted=decision.verdict == "promote", at=at)


def difference(figures: AbTestFigures, confidence: float) -> Interval:
    """In loss, challenger less champion, at every look with this confidence.

    The days' scatter gives one part of its width. Where entities return, chance also gave one arm the easier ones for good,
    which no number of days shows; that part is as wide as if each entity were a look, and both are added as variances are.
    """
    by_day = confidence_sequence(figures.days, confidence)
    if figures.entity_error == 0.0 or not math.isfinite(by_day.low):
        return by_day
    entities = min(figures.champion.entities, figures.challenger.entities)
    half = math.hypot(by_day.high - by_day.mean, reach(entities, confidence) * figures.entity_error)
    return Interval(by_day.mean, by_day.mean - half, by_day.mean + half, by_day.days)


def sample_ratio_p_value(champion: int, challenger: int, share: float) -> float:
    """That a split of this many entities is as uneven or more, if each meets the challenger with chance `share`.

    Pearson's chi-square with one degree of freedom; of no entities, 1.
    """
    together = champion + challenger
    if not together:
        return 1.0
    squared = (challenger - together * share) ** 2 / (together * share * (1.0 - share))
    return math.erfc(math.sqrt(squared / 2.0))


def _sample_ratio(figures: AbTestFigures, share: float, test: AbTest) -> Check:
    """Entities and not rows, which of one entity are no independent draws; days that are over, so one look a day at most."""
    sides = figures.champion.entities, figures.challenger.entities
    level = test.sample_ratio_alpha / test.max_days
    chance = sample_ratio_p_value(*sides, share)
    passed = chance >= level
    return Check(
        name="sample_ratio",
        passed=passed,
        figure=chance,
        rule=f"[ab_test].sample_ratio_alpha = {test.sample_ratio_alpha:g} over {test.max_days} days' looks",
        reason=f"version {figures.challenger.version} met {sides[1]:,} of {sum(sides):,} entities, {share:.0%} were to, and "
        f"{figures.crossed:,} met both: chance makes such a split in {chance:.2g} of tests"
        + (
            ""
            if passed
            else ", so something else made it and no comparison holds. Look for answers that fail or are lost"
        ),
    )


def _enough_rows(figures: AbTestFigures, test: AbTest) -> Check:
    fewer = min(figures.champion.labelled, figures.challenger.labelled)
    passed = fewer >= test.min_rows
    return Check(
        name="enough_outcomes",
        passed=passed,
        figure=fewer,
        rule=f"[ab_test].min_rows = {test.min_rows:,}",
        reason=f"{fewer:,} outcomes on the side that has fewer, {'at least' if passed else 'fewer than'} {test.min_rows:,}",
    )


def _enough_days(figures: AbTestFigures, test: AbTest) -> Check:
    passed = len(figures.days) >= test.min_days
    return Check(
        name="enough_days",
        passed=passed,
        figure=len(figures.days),
        rule=f"[ab_test].min_days = {test.min_days}",
        reason=f"the outcomes of {len(figures.days)} days are in, {'at least' if passed else 'fewer than'} {test.min_days}",
    )


def _not_worse(found: Interval, test: AbTest) -> Check:
    return Check(
        name="not_proved_worse",
        passed=found.low <= test.margin,
        figure=found.mean,
        rule=f"[ab_test].margin = {test.margin:g} with confidence = {test.confidence:g}",
        reason=f"{found.told(test.confidence)}; a rise above {test.margin:.4f} must not be proved",
    )


def _better(found: Interval, test: AbTest) -> Check:
    passed = found.high < test.margin
    return Check(
        name="proved_better" if test.margin == 0.0 else "proved_non_inferior",
        passed=passed,
        figure=found.mean,
        rule=f"[ab_test].margin = {test.margin:g} with confidence = {test.confidence:g}",
        reason=f"{found.told(test.confidence)}; "
        f"that it {'falls' if test.margin == 0.0 else f'rises by less than {test.margin:.4f}'} "
        f"is {'' if passed else 'not '}proved",
    )
