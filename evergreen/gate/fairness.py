"""Are groups treated alike? Bounds on how far the highest group may be from the lowest.

Pure checks over the groups' days in an `Evaluation`, where `[gate.fairness]` asks. As with calibration, noise can only
widen a gap, so a check refuses what is *proved* to be too wide: the lower end of a basic bootstrap interval over whole days
(Davison & Hinkley 1997, section 5.2), widened for few days as Hesterberg 2015 has it ("What Teachers Should Know About the
Bootstrap", section 4.4). Selection rate and true positive rate are those of Hardt, Price & Srebro 2016,
"Equality of Opportunity in Supervised Learning". Counting is `evergreen/groups.py`.
"""

from collections.abc import Iterator, Mapping
from datetime import date

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from evergreen.spec import FairnessConfig, GateConfig
from evergreen.types import Check, Evaluation, GroupDay

RESAMPLES = 2_000
Counts = NDArray[np.float64]


def groups_are_close(candidate: Evaluation, config: GateConfig) -> Iterator[Check]:
    """A check a bound that is set; nothing without `[gate.fairness]`."""
    fairness = config.fairness
    if fairness is None:
        return
    # A regression's margin is a share of its loss, as all of them.
    loss_unit = candidate.overall.loss if candidate.overall.task == "regression" else 1.0
    bounds = (
        ("selection", "max_selection_gap", fairness.max_selection_gap, ("selected", "rows"), 1.0),
        (
            "true_positive",
            "max_true_positive_gap",
            fairness.max_true_positive_gap,
            ("true_positives", "positives"),
            1.0,
        ),
        ("loss", "max_loss_gap", fairness.max_loss_gap, ("loss_sum", "rows"), loss_unit or 1.0),
    )
    seed = int(candidate.holdout_digest.removeprefix("sha256:")[:16], 16)
    for name, key, allowed, (over, under), unit in bounds:
        if allowed is not None:
            groups, counts = _compared(candidate.groups, over, under, fairness.min_rows)
            rule = f"[gate.fairness].{key} = {allowed:g} with confidence = {config.confidence:g}"
            found = _gap(counts, config.confidence, seed) if len(groups) > 1 else None
            yield _check(f"fairness {name}", rule, groups, found, allowed, unit, fairness)


def _compared(
    groups: Mapping[str, Mapping[date, GroupDay]], over: str, under: str, least: int
) -> tuple[list[str], Counts]:
    """Names of the groups of enough rows, and (2, days, groups): what is counted, over what."""
    kept = sorted(
        name
        for name, days in groups.items()
        if sum(day.rows for day in days.values()) >= least
        and sum(getattr(day, under) for day in days.values()) >= least
    )
    calendar = sorted({day for name in kept for day in groups[name]})
    counts = np.zeros((2, len(calendar), len(kept)))
    for place, name in enumerate(kept):
        for day, counted in groups[name].items():
            counts[:, calendar.index(day), place] = getattr(counted, over), getattr(counted, under)
    return kept, counts


def _gap(counts: Counts, confidence: float, seed: int) -> tuple[float, float, Counts]:
    """Highest rate less the lowest, what it is at least if other days like these had come, and (groups,) the rates."""
    over, under = counts
    rates: Counts = over.sum(axis=0) / under.sum(axis=0)
    found, days = float(np.ptp(rates)), len(over)
    if days < 2:
        return found, found, rates
    drawn = np.random.default_rng(seed).multinomial(days, np.full(days, 1 / days), size=RESAMPLES)
    below = drawn @ under
    drawn_rates = np.divide(drawn @ over, below, out=np.broadcast_to(rates, below.shape).copy(), where=below > 0)
    widening = np.sqrt(days / (days - 1)) * stdtrit(days - 1, confidence) / ndtri(confidence)
    low = found - widening * (float(np.quantile(np.ptp(drawn_rates, axis=1), confidence)) - found)
    return found, float(np.clip(low, 0.0, found)), rates


def _check(
    name: str,
    rule: str,
    groups: list[str],
    found: tuple[float, float, Counts] | None,
    allowed: float,
    unit: float,
    fairness: FairnessConfig,
) -> Check:
    if found is None:
        return Check(
            name=name,
            passed=False,
            figure=0.0,
            rule=rule,
            reason=f"{len(groups)} groups of {fairness.column} have {fairness.min_rows:,} rows to compare, two are needed",
        )
    gap, low, rates = found[0] / unit, found[1] / unit, found[2]
    high_at, low_at = int(rates.argmax()), int(rates.argmin())
    return Check(
        name=name,
        passed=low <= allowed,
        figure=gap,
        rule=rule,
        reason=f"{fairness.column} {groups[high_at]} {rates[high_at]:.3f}, {groups[low_at]} {rates[low_at]:.3f} of "
        f"{len(groups)} groups: {gap:.3f} apart, proved to be at least {low:.3f}, at most {allowed:.3f} allowed",
    )
