"""How often the gate errs, and what it can see: `python -m bench.gate`.

Pairs of models are simulated day by day, as real successive models on the flights of 2013 differ: a day moves the
difference of the two as a whole, rows scatter within it, and both share how hard the day was. Every pair goes through
the gate's own checks. Reported by length of holdout: how often equal models pass a superiority gate (at most 1 -
confidence), how often a candidate that is worse by just the margin passes non-inferiority (the same), how often equal
and better ones pass, how often some slice of equal models is refused, how often a fairness bound that just holds is refused,
and the same of a percentile bootstrap of days.
Prints tables and writes `reports/bench/gate.json`.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import expit, logit, ndtri

from bench.record import record
from evergreen.evaluation import evaluate
from evergreen.figures import auc_pulls
from evergreen.gate.absolute import calibrated
from evergreen.gate.champion import better_than_champion, not_worse_than_champion
from evergreen.gate.fairness import groups_are_close
from evergreen.gate.slices import slices_hold
from evergreen.paired import paired_auc
from evergreen.settings import ROOT
from evergreen.spec import FairnessConfig, GateConfig
from evergreen.types import Check, DayLoss, Evaluation, GroupDay, Scores, Window

START = datetime(2013, 5, 1, tzinfo=UTC)
ROWS_A_DAY = 917
LOSS = 0.463
"""Mean log loss of the champion; its days scatter by `LOSS_STD`."""
LOSS_STD = 0.118
SLICES = 14
"""Three origins and eleven carriers have enough rows; each is a share of the day."""
DIGEST = "sha256:" + "0" * 64
LENGTHS = (7, 14, 28)
EFFECTS = (0.0, -0.005, -0.02, -0.05)
"""Of the champion's log loss."""
Figures = dict[str, float]


@dataclass(frozen=True)
class Kin:
    """How two models differ: standard deviation of the difference over days, and of rows within a day."""

    day_std: float
    row_std: float
    bad_days: float = 0.0
    """Share of days on which the candidate is far worse, made up for by the others: a skew nobody sees in a week."""


KINDS = {
    "seed": Kin(0.0133, 0.104),  # same rows, another seed, 36 days: truly equal models
    "week": Kin(0.0088, 0.110),  # a week fresher, 29 days
    "month": Kin(0.0245, 0.129),  # four weeks fresher, 36 days; one of them far better
    "seed_rare_bad_day": Kin(0.0098, 0.104, bad_days=1 / 30),
}
"""Fitted to four models trained on flights before 25 March, 22 April (two seeds) and 29 April 2013. Neighbouring days are
uncorrelated (-0.15 to 0.12); tails are those of Student's t with 5 degrees of freedom (excess kurtosis -0.2 to 10)."""
SLICE = Kin(0.03, 0.12)
"""Slices of some hundred rows a week: errors of 0.004 to 0.03 over eight days."""


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2_000)
    pairs = parser.parse_args().pairs
    rules = GateConfig()
    figures: Figures = {"pairs": float(pairs), "confidence": rules.confidence, "margin": rules.margin}
    for days in LENGTHS:
        for name, kin in KINDS.items():
            figures |= {f"{name}_{days}d_{key}": value for key, value in passes(kin, days, pairs, rules).items()}
        figures |= {f"slices_{days}d_{key}": value for key, value in slices(days, pairs // 4, rules).items()}
        figures |= {f"calibration_{days}d_{key}": value for key, value in calibration(days, pairs // 4).items()}
        figures |= {f"auc_{days}d_{key}": value for key, value in ranking(days, pairs // 4, rules).items()}
        figures |= {f"fairness_{days}d_{key}": value for key, value in fairness(days, pairs // 4).items()}
    report(figures)


def passes(kin: Kin, days: int, pairs: int, rules: GateConfig) -> Figures:
    """Share of pairs that pass, by rule and true effect."""
    figures: Figures = {}
    for effect in EFFECTS:
        name = "equal" if effect == 0.0 else f"better_{-effect:.1%}"
        drawn = list(simulated(kin, days, pairs, effect * LOSS))
        figures[f"superior_{name}"] = share(drawn, lambda a, b: better_than_champion(a, b, rules))
        figures[f"not_worse_{name}"] = share(drawn, lambda a, b: not_worse_than_champion(a, b, rules))
        if effect == 0.0:
            figures["superior_equal_percentile_bootstrap"] = percentile_passes(drawn, rules.confidence)
    drawn = list(simulated(kin, days, pairs, rules.margin, seed=1))
    figures["not_worse_at_margin"] = share(drawn, lambda a, b: not_worse_than_champion(a, b, rules))
    return figures


def slices(days: int, pairs: int, rules: GateConfig) -> Figures:
    """Share of pairs that lose a slice: equal ones, and those whose first slice truly rose.

    `proved_worse_equal` is the corrected test by itself, without the rise that is allowed anyway.
    """
    figures = dict.fromkeys(("proved_worse_equal",), 0.0)
    for rise in (0.0, 0.07, 0.1):
        refused = 0
        for number in range(pairs):
            candidate, champion = sliced(days, rise, np.random.default_rng((days, number, 7)))
            refused += not all(check.passed for check in slices_hold(candidate, champion, rules))
            if rise == 0.0:
                strict = rules.model_copy(update={"max_slice_loss": 0.0})
                proved = not all(check.passed for check in slices_hold(candidate, champion, strict))
                figures["proved_worse_equal"] += proved / pairs
        figures["refused_equal" if rise == 0.0 else f"refused_one_rose_{rise:g}"] = refused / pairs
    return figures


def calibration(days: int, models: int) -> Figures:
    """Share of models refused at a limit of 0.05, by the error itself and by its lower bound.

    Days share an error of 0.4 in log odds; `gap` is what the model is wrong by beyond that.
    """
    rules = GateConfig(max_calibration_error=0.05)
    figures: Figures = {}
    for gap in (0.0, 0.05, 0.1):
        by_error = by_bound = 0
        for number in range(models):
            found = uncalibrated(days, gap, np.random.default_rng((days, number, 11)))
            by_error += found.overall["calibration_error"] > rules.max_calibration_error
            by_bound += not calibrated(found, rules).passed
        figures[f"refused_gap_{gap:g}"] = by_bound / models
        figures[f"refused_gap_{gap:g}_by_point"] = by_error / models
    return figures


def ranking(days: int, pairs: int, rules: GateConfig) -> Figures:
    """Share of pairs of equal models of which the candidate is shown to rank better: by days, and by DeLong's rows."""
    figures = dict.fromkeys(("better_equal", "better_equal_by_rows"), 0.0)
    for number in range(pairs):
        rng = np.random.default_rng((days, number, 13))
        place = np.repeat(np.arange(days), ROWS_A_DAY)
        odds = rng.normal(-1.5, 1.0, len(place))
        labels = (rng.random(len(place)) < expit(odds)).astype(float)
        # Each model misjudges whole days, and rows.
        both = [expit(odds + rng.normal(0, 0.3, days)[place] + rng.normal(0, 0.5, len(place))) for _ in range(2)]
        candidate, champion = (evaluated(place, labels, scores) for scores in both)
        found = paired_auc(candidate.overall, champion.overall)
        assert found is not None
        figures["better_equal"] += (found.lower(rules.confidence) > 0.0) / pairs
        by_rows = float(np.linalg.norm(auc_pulls(labels, both[0]) - auc_pulls(labels, both[1])))
        figures["better_equal_by_rows"] += (found.mean > ndtri(rules.confidence) * by_rows) / pairs
    return figures


def fairness(days: int, models: int) -> Figures:
    """Share of models refused where a bound of 0.1 on the selection rate holds just so, and where groups are 0.2 apart.

    Two groups, of a third and two thirds of the rows; each day moves each group's rate by 0.08 by itself.
    """
    rules = GateConfig(fairness=FairnessConfig(column="origin", max_selection_gap=0.1))
    calendar = [(START + timedelta(days=n)).date() for n in range(days)]
    figures: Figures = {}
    for gap in (0.1, 0.2):
        refused = 0
        for number in range(models):
            rng = np.random.default_rng((days, number, 17))
            groups = {}
            for name, share_of_rows, rate in (("EWR", 1 / 3, 0.3), ("JFK", 2 / 3, 0.3 + gap)):
                rows = (holdout_rows(days, rng) * share_of_rows).astype(np.int64)
                selected = rng.binomial(rows, np.clip(rate + rng.normal(0.0, 0.08, days), 0.0, 1.0))
                counted = zip(calendar, rows.tolist(), selected.tolist(), strict=True)
                groups[name] = {day: GroupDay(rows=n, loss_sum=0.0, selected=k) for day, n, k in counted}
            digest = f"sha256:{number:064x}"
            judged = an_evaluation(totals(champion_losses(days, rng), holdout_rows(days, rng)))
            judged = judged.model_copy(update={"groups": groups, "holdout_digest": digest})
            refused += not all(check.passed for check in groups_are_close(judged, rules))
        figures[f"refused_gap_{gap:g}"] = refused / models
    return figures


def simulated(kin: Kin, days: int, pairs: int, rise: float, seed: int = 0) -> Iterator[tuple[Evaluation, Evaluation]]:
    """Candidate and champion `pairs` times; the candidate's true log loss is `rise` higher."""
    rng = np.random.default_rng((seed, days))
    for _ in range(pairs):
        rows = holdout_rows(days, rng)
        losses = champion_losses(days, rng)
        yield (
            an_evaluation(totals(losses + difference(kin, rows, rise, rng), rows)),
            an_evaluation(totals(losses, rows)),
        )


def difference(kin: Kin, rows: NDArray[np.int64], rise: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(days,) mean difference of each day."""
    days = len(rows)
    drawn = rng.standard_t(5, days) * np.sqrt(3 / 5) * kin.day_std
    if kin.bad_days:
        drawn += 0.05 * ((rng.random(days) < kin.bad_days) - kin.bad_days)
    noise: NDArray[np.float64] = rise + drawn + rng.normal(0.0, kin.row_std, days) / np.sqrt(rows)
    return noise


def sliced(days: int, rise: float, rng: np.random.Generator) -> tuple[Evaluation, Evaluation]:
    """Two equal models by slice, but for the first slice, which is worse by `rise`."""
    both: list[dict[str, Scores]] = [{}, {}]
    for number in range(SLICES):
        rows = holdout_rows(days, rng) // 12
        losses = champion_losses(days, rng)
        changed = losses + difference(SLICE, rows, rise if number == 0 else 0.0, rng)
        for parts, values in zip(both, (changed, losses), strict=True):
            parts[f"slice={number}"] = totals(values, rows)
    whole = totals(losses, rows)
    return an_evaluation(whole, both[0]), an_evaluation(whole, both[1])


def uncalibrated(days: int, gap: float, rng: np.random.Generator) -> Evaluation:
    """A model whose every probability is `gap` too high, on days that are harder or easier than it knows."""
    place = np.repeat(np.arange(days), ROWS_A_DAY)
    truth = rng.beta(1.5, 4.5, len(place)) * (1 - gap)
    chance = expit(logit(truth) + rng.normal(0.0, 0.4, days)[place])
    return evaluated(place, (rng.random(len(place)) < chance).astype(float), truth + gap)


def evaluated(place: NDArray[np.int64], labels: NDArray[np.float64], scores: NDArray[np.float64]) -> Evaluation:
    """Rows of days numbered from 0."""
    return evaluate(
        model="simulated",
        artifact=DIGEST,
        holdout=window(int(place[-1]) + 1),
        holdout_digest=DIGEST,
        labels=labels,
        scores=scores,
        days=np.datetime64("2013-05-01") + place,
        slices={},
    )


def holdout_rows(days: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of each day."""
    return np.maximum(rng.normal(ROWS_A_DAY, 97, days), 100).astype(np.int64)


def champion_losses(days: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean loss of each day, too high for a difference to take it below zero."""
    losses: NDArray[np.float64] = np.maximum(rng.normal(LOSS, LOSS_STD, days), 0.2) + 1.0
    return losses


def totals(losses: NDArray[np.float64], rows: NDArray[np.int64]) -> Scores:
    """Figures of days with these mean losses."""
    by_day = tuple(
        DayLoss(day=(START + timedelta(days=n)).date(), rows=int(count), loss_sum=float(count * loss))
        for n, (loss, count) in enumerate(zip(losses, rows, strict=True))
    )
    return Scores(rows=int(rows.sum()), figures={"log_loss": float((losses * rows).sum() / rows.sum())}, by_day=by_day)


def an_evaluation(overall: Scores, parts: dict[str, Scores] | None = None) -> Evaluation:
    """With what the comparisons look at."""
    days = len(overall.by_day)
    return Evaluation(
        model="simulated",
        artifact=DIGEST,
        holdout=window(days),
        holdout_digest=DIGEST,
        days=days,
        overall=overall,
        slices=parts or {},
    )


def window(days: int) -> Window:
    """So many days from the start."""
    return Window(start=START, end=START + timedelta(days=days))


def share(pairs: Sequence[tuple[Evaluation, Evaluation]], check: Callable[[Evaluation, Evaluation], Check]) -> float:
    """Of the pairs that pass."""
    return sum(check(*pair).passed for pair in pairs) / len(pairs)


def percentile_passes(pairs: Sequence[tuple[Evaluation, Evaluation]], confidence: float) -> float:
    """The same superiority gate with the upper percentile of 1,000 resamples of the days for its bound."""
    rng, passed = np.random.default_rng(1), 0
    for candidate, champion in pairs:
        both = zip(candidate.overall.by_day, champion.overall.by_day, strict=True)
        table = np.array([(one.loss_sum - other.loss_sum, one.rows) for one, other in both])
        drawn = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=1_000) @ table
        passed += float(np.quantile(drawn[:, 0] / drawn[:, 1], confidence)) < 0.0
    return passed / len(pairs)


def report(figures: Figures) -> None:
    """Print the figures and write them with what they were measured on."""
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)
    path = record("gate", figures, ("numpy", "scipy"))
    Console().print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
