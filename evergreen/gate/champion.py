"""The candidate beside the champion, and beside the plain models, on the same rows with days as the unit.

Non-inferiority and superiority as `paired.py` bounds them. Called by `decision.py`; how often it errs and what it can see is
measured by `bench/gate.py`.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, time

from evergreen.gate.evidence import require_same_holdout
from evergreen.paired import PairedDifference, paired_auc, paired_difference
from evergreen.spec import GateConfig
from evergreen.types import Baselines, Check, Evaluation, Scores

MINUTE = "%Y-%m-%d %H:%M"


def earns_its_place(candidate: Evaluation, baselines: Baselines, rules: GateConfig) -> Iterator[Check]:
    """Non-inferior to the best plain model of the same rows; shown also where `[gate].baseline_margin` asks nothing."""
    found, allowed = baselines.evaluations, rules.baseline_margin
    if not found:
        if allowed is not None:
            yield Check(
                name="baseline",
                passed=False,
                figure=0.0,
                rule=f"[gate].baseline_margin = {allowed:g}",
                reason="no baseline was trained, so nothing shows that the candidate earns its place",
            )
        return
    best = min(found, key=lambda name: found[name].overall.loss)
    require_same_holdout(candidate, found[best], best)
    mine, theirs = candidate.overall, found[best].overall
    change = paired_difference(mine, theirs)
    asked = f"= {allowed:g} with confidence = {rules.confidence:g}" if allowed is not None else "unset: decides nothing"
    limit = math.inf if allowed is None else theirs.allowance(allowed)
    yield Check(
        name="baseline",
        passed=change.upper(rules.confidence) <= limit,
        figure=_bound(change, rules),
        rule=f"[gate].baseline_margin {asked}",
        reason=f"{beside(mine, theirs, best)}: {_change(theirs, change, rules)}"
        + (f", may be {theirs.told(limit, '.4f')} above" if allowed is not None else ""),
    )


def champion_unseen(champion: Evaluation) -> Iterator[Check]:
    """The rows that judge come later than what either learnt from: else the champion knows their answers, and so may a
    candidate that was made from it. Shown where it is known up to when the champion learnt."""
    until, judged = champion.learnt_until, champion.holdout
    if until is None:
        return
    passed = until <= judged.start
    days = [] if passed else [day for day in champion.overall.by_day if datetime.combine(day.day, time(), UTC) < until]
    yield Check(
        name="champion_unseen",
        passed=passed,
        figure=len(days),
        rule="the champion has learnt from none of the rows that judge",
        reason=f"the champion learnt from rows before {until:{MINUTE}}, and the rows that judge begin at {judged.start:{MINUTE}}"
        + (
            ""
            if passed
            else f", so it has learnt from {len(days)} of the {champion.days} days that judge and is no measure on them. "
            f"Retrain with an as_of of {until + (judged.end - judged.start):{MINUTE}} or later, or lower [train].holdout_days"
        ),
    )


def not_worse_than_champion(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Check:
    """Non-inferior on the same rows: a fresher model need not prove that it is better, only that it is not worse."""
    mine, theirs = candidate.overall, champion.overall
    found, allowed = paired_difference(mine, theirs), theirs.allowance(rules.margin)
    return Check(
        name="not_worse_than_champion",
        passed=found.upper(rules.confidence) <= allowed,
        figure=_bound(found, rules),
        rule=f"[gate].margin = {rules.margin:g} with confidence = {rules.confidence:g}",
        reason=f"{beside(mine, theirs)}: {_change(theirs, found, rules)}, may rise {theirs.told(allowed, '.4f')}",
    )


def better_than_champion(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Check:
    """Superior on the same rows; asked for by `[gate].superiority`."""
    found = paired_difference(candidate.overall, champion.overall)
    return Check(
        name="better_than_champion",
        passed=found.upper(rules.confidence) < 0.0,
        figure=_bound(found, rules),
        rule=f"[gate].superiority = true with confidence = {rules.confidence:g}",
        reason=f"{beside(candidate.overall, champion.overall)}: {_change(champion.overall, found, rules)}, must fall",
    )


def ranks_no_worse(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """Non-inferior in AUC on the same rows; shown also where `[gate].max_auc_drop` asks nothing, if both have an AUC."""
    found, allowed = paired_auc(candidate.overall, champion.overall), rules.max_auc_drop
    if found is None:
        return
    lower = found.lower(rules.confidence)
    rule = f"= {allowed:g} with confidence = {rules.confidence:g}" if allowed is not None else "unset: decides nothing"
    bound = f"with {rules.confidence:.0%} confidence at least {lower:+.4f}" if found.days > 1 else "on one day no bound"
    yield Check(
        name="auc_beside_champion",
        passed=allowed is None or lower >= -allowed,
        figure=lower if math.isfinite(lower) else found.mean,
        rule=f"[gate].max_auc_drop {rule}",
        reason=f"AUC {candidate.overall['auc']:.3f}, champion {champion.overall['auc']:.3f}: change {found.mean:+.4f}, {bound}"
        + (f", may fall {allowed:.4f}" if allowed is not None else ""),
    )


def beside(mine: Scores, theirs: Scores, other: str = "champion") -> str:
    """Both losses, as sentences begin with them."""
    return f"{mine.loss_name} {mine.told(mine.loss)}, {other} {theirs.told(theirs.loss)}"


def _bound(found: PairedDifference, rules: GateConfig) -> float:
    """What the rule looks at; on one day, where there is no bound, the difference."""
    upper = found.upper(rules.confidence)
    return upper if math.isfinite(upper) else found.mean


def _change(theirs: Scores, found: PairedDifference, rules: GateConfig) -> str:
    change = f"change {theirs.told(found.mean, '+.4f')}"
    if found.days < 2:
        return f"{change}, of which one day says no bound"
    return (
        f"{change}, with {rules.confidence:.0%} confidence at most {theirs.told(found.upper(rules.confidence), '+.4f')}"
    )
