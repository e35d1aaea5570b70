"""Rolling out: what the challenger of a release may do next, by what it did while people were answered.

A judgement over live figures; no clock, no database. How a release may change at all is `release.py`'s; `tasks/release.py`
calls both. To add a guardrail, write a function returning a `Check` and list it in `judge`.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from evergreen.errors import ReleaseConflict
from evergreen.release import need_challenger, promote, roll_back, step
from evergreen.sequential import confidence_sequence
from evergreen.spec import ReleaseConfig
from evergreen.types import Check, LiveFigures, Release, ReleaseDecision

PAIRED = "days of the same rows"


def judge(
    release: Release,
    champion: LiveFigures | None,
    challenger: LiveFigures,
    config: ReleaseConfig,
    now: datetime,
    days: Sequence[float] = (),
    since: datetime | None = None,
) -> ReleaseDecision:
    """What to do with the challenger, from what it did since the release last changed.

    `days` are the differences in loss that `paired_days` gives of the days since the challenger was started, which was at
    `since` (None: when the release last changed). A broken guardrail rolls back at once, dwell or not, as soon as there are
    enough rows to believe it; a proved rise in loss needs no more rows. Then the dwell decides between holding and the next of
    `config.steps`, and before the last of them proof, where it is asked for. Labelled figures count once enough outcomes are in.
    """
    need_challenger(release, "judge")
    rows, dwell = _rows(challenger, config), _dwell(release, config, now)
    guardrails = (
        errors(challenger, config),
        latency(challenger, config),
        _live_loss(champion, challenger, config),
    )
    worse = _not_proved_worse(challenger, days, config)
    share, started = next_share(release, config), since or release.changed_at
    proof = (_proof(challenger, days, config, now - started),) if share == 1.0 and config.asks_for_proof else ()
    checks = (rows, *guardrails, worse, dwell, *proof)
    broken = tuple(check.reason for check in (*guardrails, worse) if not check.passed)
    waiting = tuple(check.reason for check in (rows, dwell, *proof) if not check.passed)
    if broken and (rows.passed or not worse.passed):
        return ReleaseDecision(revision=release.revision, action="roll_back", checks=checks, reasons=broken)
    if waiting:
        waited = now - started >= timedelta(days=config.proof_days) and not all(check.passed for check in proof)
        action: Literal["hold", "roll_back"] = "roll_back" if waited and config.unproved == "roll_back" else "hold"
        return ReleaseDecision(revision=release.revision, action=action, checks=checks, reasons=waiting)
    reasons = (f"{len(checks)} checks hold; next share {share:.0%}", *(check.reason for check in checks))
    return ReleaseDecision(
        revision=release.revision, action="promote" if share == 1.0 else "advance", checks=checks, reasons=reasons
    )


def follow(release: Release, decision: ReleaseDecision, config: ReleaseConfig, at: datetime) -> Release:
    """What was decided: the next share, all of the traffic, back, or nothing.

    Raises `ReleaseConflict` where the release is not the one that was judged.
    """
    if release.revision != decision.revision:
        raise ReleaseConflict(
            f"{release.model}: revision {decision.revision} was judged, but the release is at {release.revision} now. "
            "Nothing was changed; the next look judges again."
        )
    if decision.action == "promote":
        return promote(release, at=at)
    if decision.action == "roll_back":
        return roll_back(release, at=at)
    if decision.action == "hold":
        return release
    return step(release, share=next_share(release, config), at=at)


def next_share(release: Release, config: ReleaseConfig) -> float:
    """The first of `config.steps` above the challenger's share; the last is always 1."""
    return next((share for share in config.steps if share > release.challenger_share), 1.0)


def _rows(challenger: LiveFigures, config: ReleaseConfig) -> Check:
    passed = challenger.rows >= config.min_rows
    return Check(
        name="enough_answers",
        passed=passed,
        figure=challenger.rows,
        rule=f"[release].min_rows = {config.min_rows:,}",
        reason=f"version {challenger.version} gave {challenger.rows:,} answers at this step, "
        f"{'at least' if passed else 'fewer than'} {config.min_rows:,}",
    )


def _dwell(release: Release, config: ReleaseConfig, now: datetime) -> Check:
    hours = (now - release.changed_at) / timedelta(hours=1)
    passed = hours >= config.dwell_hours
    return Check(
        name="dwell",
        passed=passed,
        figure=hours,
        rule=f"[release].dwell_hours = {config.dwell_hours:g}",
        reason=f"{hours:.1f} h at a share of {release.challenger_share:.0%}, "
        f"{'at least' if passed else 'less than'} {config.dwell_hours:g} h",
    )


def errors(challenger: LiveFigures, config: ReleaseConfig) -> Check:
    """It fails on next to none."""
    share = challenger.failed / max(challenger.rows, 1)
    passed = share <= config.max_error_share
    return Check(
        name="errors",
        passed=passed,
        figure=share,
        rule=f"[release].max_error_share = {config.max_error_share:g}",
        reason=f"version {challenger.version} failed on {challenger.failed:,} of {challenger.rows:,} rows, "
        f"{'within' if passed else 'above'} a share of {config.max_error_share:g}",
    )


def _not_proved_worse(challenger: LiveFigures, days: Sequence[float], config: ReleaseConfig) -> Check:
    """May be asked every day: at all looks together a challenger that is no worse is refused with at most 1 - confidence."""
    found = confidence_sequence(days, config.confidence)
    return Check(
        name="not_proved_worse",
        passed=found.low <= config.max_proved_loss,
        figure=found.mean,
        rule=f"[release].max_proved_loss = {config.max_proved_loss:g} with confidence = {config.confidence:g}",
        reason=f"version {challenger.version}: {found.told(config.confidence, PAIRED)}; "
        f"a rise above {config.max_proved_loss:.4f} must not be proved",
    )


def _proof(challenger: LiveFigures, days: Sequence[float], config: ReleaseConfig, waited: timedelta) -> Check:
    """The same interval from above; its error, too, is bounded over all looks together."""
    found = confidence_sequence(days, config.confidence)
    passed = found.high < config.proof_margin
    over = "" if passed or waited < timedelta(days=config.proof_days) else f", after {waited.days} days of waiting"
    return Check(
        name="proved_non_inferior",
        passed=passed,
        figure=found.high if math.isfinite(found.high) else found.mean,
        rule=f"[release].proof_margin = {config.proof_margin:g} with confidence = {config.confidence:g}",
        reason=f"version {challenger.version}: {found.told(config.confidence, PAIRED)}; "
        f"that it rises by less than {config.proof_margin:.4f} is {'proved' if passed else 'not proved yet'}{over}",
    )


def latency(challenger: LiveFigures, config: ReleaseConfig) -> Check:
    """It answers in time."""
    passed = challenger.p99_latency_ms <= config.max_latency_ms
    return Check(
        name="latency",
        passed=passed,
        figure=challenger.p99_latency_ms,
        rule=f"[release].max_latency_ms = {config.max_latency_ms:g}",
        reason=f"version {challenger.version}: p99 latency {challenger.p99_latency_ms:.1f} ms, "
        f"{'within' if passed else 'above'} {config.max_latency_ms:g} ms",
    )


def _live_loss(champion: LiveFigures | None, challenger: LiveFigures, config: ReleaseConfig) -> Check:
    rule = f"[release].max_live_loss = {config.max_live_loss:g} with min_live_labels = {config.min_live_labels:,}"
    labelled = min(challenger.labelled, champion.labelled if champion else 0)
    if champion is None or champion.scores is None or challenger.scores is None or labelled < config.min_live_labels:
        return Check(
            name="live_loss",
            passed=True,
            figure=labelled,
            rule=rule,
            reason=f"live loss is not judged yet: {labelled:,} outcomes on the side that has fewer, "
            f"{config.min_live_labels:,} asked for",
        )
    mine, theirs = challenger.scores, champion.scores
    rise, allowed = mine.loss - theirs.loss, theirs.allowance(config.max_live_loss)
    passed = rise <= allowed
    return Check(
        name="live_loss",
        passed=passed,
        figure=rise,
        rule=rule,
        reason=f"version {challenger.version}: live {mine.loss_name} {mine.told(mine.loss)} on {challenger.labelled:,} rows, "
        f"champion {theirs.told(theirs.loss)} on {champion.labelled:,}, {'within' if passed else 'above'} the rise of "
        f"{theirs.told(allowed)} allowed",
    )
