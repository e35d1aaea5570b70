"""How often a daily look at a release errs, and how soon it sees what: `python -m bench.release`.

Pairs of versions are simulated by day as `bench/gate.py` fits them to successive models on the flights of 2013, and looked at
every day for 60 days: how often versions that are truly equal are ever taken for worse (at most 1 - confidence), by the
confidence sequence that `evergreen/rollout.py` asks and by the t bound that would be right at one look; and after how many
days a truly worse one is rolled back, and equal ones are proved to be no worse. Prints a table and writes
`reports/bench/release.json`.
"""

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import stdtrit

from bench.gate import KINDS, LOSS, Kin, difference, holdout_rows
from bench.record import record
from evergreen.sequential import confidence_sequence
from evergreen.settings import ROOT
from evergreen.spec import ReleaseConfig

DAYS = 60
MARGINS = (0.01, 0.02, 0.03)
"""Of a proof that the loss does not rise, in log loss."""
RISES = (0.02, 0.05, 0.1, 0.2)
"""Of the champion's log loss."""


def main() -> None:
    """Simulate, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--releases", type=int, default=1_000)
    releases = parser.parse_args().releases
    confidence = ReleaseConfig().confidence
    figures: dict[str, float] = {"releases": float(releases), "days": float(DAYS), "confidence": confidence}
    for name, kin in KINDS.items():
        caught, by_t = first_alarms(kin, 0.0, releases, confidence)
        figures[f"{name}_false_alarms"] = float(np.mean(caught <= DAYS))
        figures[f"{name}_false_alarms_t_daily"] = float(np.mean(by_t <= DAYS))
        for margin, days in first_proofs(kin, releases // 4, confidence).items():
            figures[f"{name}_proved_within_{margin:g}_median_days"] = float(np.median(days))
            figures[f"{name}_proved_within_{margin:g}_in_21_days"] = float(np.mean(days <= 21))
    for rise in RISES:
        caught, _ = first_alarms(KINDS["seed"], rise * LOSS, releases // 2, confidence)
        figures[f"worse_{rise:.0%}_median_days"] = float(np.median(caught))
        figures[f"worse_{rise:.0%}_caught_in_14_days"] = float(np.mean(caught <= 14))
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.4g}")
    Console().print(table)
    Console().print(f"written to {record('release', figures, ('numpy', 'scipy')).relative_to(ROOT)}")


def first_alarms(
    kin: Kin, rise: float, releases: int, confidence: float
) -> tuple["np.typing.NDArray[np.int64]", "np.typing.NDArray[np.int64]"]:
    """(releases,) day of the first alarm, by the confidence sequence and by a t bound; `DAYS` + 1 where there was none."""
    rng = np.random.default_rng(17)
    found = np.full((2, releases), DAYS + 1)
    for number in range(releases):
        days = difference(kin, holdout_rows(DAYS, rng), rise, rng)
        for count in range(3, DAYS + 1):
            seen = days[:count]
            bound = seen.mean() - stdtrit(count - 1, confidence) * seen.std(ddof=1) / np.sqrt(count)
            alarms = (confidence_sequence(seen.tolist(), confidence).low > 0.0, bound > 0.0)
            for which, alarm in enumerate(alarms):
                if alarm:
                    found[which, number] = min(found[which, number], count)
    return found[0], found[1]


def first_proofs(kin: Kin, releases: int, confidence: float) -> dict[float, "np.typing.NDArray[np.int64]"]:
    """By margin: (releases,) day on which equal versions are proved to differ by less; `DAYS` + 1 where they never were."""
    rng = np.random.default_rng(19)
    found = {margin: np.full(releases, DAYS + 1) for margin in MARGINS}
    for number in range(releases):
        days = difference(kin, holdout_rows(DAYS, rng), 0.0, rng).tolist()
        highs = {count: confidence_sequence(days[:count], confidence).high for count in range(3, DAYS + 1)}
        for margin, first in found.items():
            first[number] = next((count for count, high in highs.items() if high < margin), DAYS + 1)
    return found


if __name__ == "__main__":
    main()
