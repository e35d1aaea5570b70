"""May one look every day? A confidence sequence for a daily difference: right at all looks at once, not at one.

The days' mean differences are taken as normal with unknown spread. Under a normal prior on the effect size and the invariant
prior on the spread, the Bayes factor against a mean of m is an e-process (Wang & Ramdas 2024, "Anytime-valid t-tests and
confidence sequences for Gaussian means with unknown variance", section 4; the closed form is that of Gönen et al. 2005, "The
Bayesian Two-Sample t-test"). By Ville's inequality it ever exceeds 1 / (1 - confidence) with at most 1 - confidence of
chance, so the m it has not refuted by then hold the truth at every look. How often that errs on days as the flights' are, and
after how many days it sees what, is measured by `bench/release.py`.

The theorem wants each day's figure fixed when it is first seen. `paired_days` computes past days again with the outcomes that
came since (a late one moves its day's mean a little), so the sequence looked at tomorrow is not quite today's with a day added.
In 20,000 simulated roll-outs of equal models with sixty daily looks, at a level of 5%, 1.1 to 1.3% err on days that stay as
they were, and at most 1.6% where a fifth of each day's outcomes comes a day late and what came early leans to one side by as
much as days scatter. `[monitor].min_label_share` bounds how much of a day may still come.

Pure. Called by `rollout.py`, over what `monitoring/shadow.py` pairs, and by `ab_test.py`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

EFFECT_VARIANCE = 25.0
"""Of the prior: effects of some five times the days' scatter are looked for first, which three days can show. A smaller one
would see a small effect a few per cent earlier and a large one days later."""


@dataclass(frozen=True)
class Interval:
    """Where a daily difference is, at every look so far with the stated confidence."""

    mean: float
    low: float
    high: float
    days: int

    def told(self, confidence: float, over: str = "days") -> str:
        """In words, for a difference of losses over so many of `over`."""
        bounds = (
            f"between {self.low:+.4f} and {self.high:+.4f} at every look with {confidence:.0%} confidence"
            if math.isfinite(self.low)
            else "too few to bound it"
        )
        return f"loss changes by {self.mean:+.4f} a row over {self.days} {over}, {bounds}"


def confidence_sequence(differences: Sequence[float], confidence: float) -> Interval:
    """The interval after these days (each one's mean difference a row, oldest first); without bounds below three days."""
    days = len(differences)
    mean = sum(differences) / days if days else 0.0
    reach_days = reach(days, confidence)
    if not math.isfinite(reach_days):
        return Interval(mean, -math.inf, math.inf, days)
    spread = math.sqrt(sum((one - mean) ** 2 for one in differences) / (days - 1))
    return Interval(
        mean, mean - reach_days * spread / math.sqrt(days), mean + reach_days * spread / math.sqrt(days), days
    )


def reach(days: int, confidence: float) -> float:
    """Standard errors from the mean to where the Bayes factor is 1 / (1 - confidence); infinite where it cannot be."""
    if days < 2:
        return math.inf
    widened = 1.0 + days * EFFECT_VARIANCE
    ratio = (math.sqrt(widened) / (1.0 - confidence)) ** (2.0 / days)
    if ratio >= widened:
        return math.inf
    return math.sqrt((days - 1) * (ratio - 1.0) / (1.0 - ratio / widened))
