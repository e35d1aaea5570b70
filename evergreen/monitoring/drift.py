"""Did the inputs move, or do days just differ? Distances whose chance was found by exchanging days.

Rows of one day are not independent, so a test over rows alarms on data in which nothing drifts. Here the unit is the
day, or a block of days: if nothing drifted, the newest blocks could have been any of all blocks, and a distance is
judged by how often such a draw makes one as large (a block permutation test; Good 2005, "Permutation, Parametric and
Bootstrap Tests of Hypotheses"). Over `DayCounts` a draw is a row of a matrix product. False discoveries among features,
which depend on each other, are controlled by Benjamini & Yekutieli 2001 ("The control of the false discovery rate in
multiple testing under dependency"); that any feature moved at all is one test, of the largest standardised distance
over all features under the same draws (Westfall & Young 1993, "Resampling-Based Multiple Testing").

Blocks are taken as exchangeable. Where days resemble their neighbours for longer than a block, distances come out
surer than they are: lengthen `[monitor].block_days`. A season that returns is told from drift by a second reference,
the same days of a year before, where history has them.

Pure: the seed is the caller's and goes on record. Called by the watch task; nothing here decides to retrain.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.sketch import Binning, DayCounts, Kind, count_days, fit_binning
from evergreen.spec import MonitorConfig
from evergreen.types import DriftVerdict, FeatureShift, Window

YEAR = np.timedelta64(365, "D")
SEASON = np.timedelta64(14, "D")
"""Days of the year before count as the same season when they are within this of the window's."""
MOST_PERMUTATIONS = 20_000
_DRAWS_AT_ONCE = 512
"""Bounds the memory of the permutations."""


@dataclass(frozen=True)
class _Compared:
    """Current days beside one reference."""

    distances: NDArray[np.float64]
    """(features,) Jensen-Shannon distance, from 0 to 1."""
    usual: NDArray[np.float64]
    """(features,) what that distance stays below in all but `level` of the draws."""
    p_values: NDArray[np.float64]
    overall: float


def judge_drift(
    reference: DayCounts, current: DayCounts, binning: Binning, *, level: float, block_days: int, seed: int
) -> DriftVerdict:
    """Which features moved between the days of `reference` and those of `current`, with what chance of being wrong.

    Both are counted with `binning` and share no day. A feature drifted when its p value, corrected for looking at all,
    is at most `level`, against the whole reference and, where that holds the same season a year before, against that
    too. Raises `DataError` where a side has no days, or they overlap.
    """
    _require(reference, current)
    permutations = permutations_for(len(binning.features), level)
    random = np.random.default_rng(seed)
    whole = _compare(reference, current, binning, level, block_days, permutations, random)
    season = _same_season(reference, current, block_days)
    before = None if season is None else _compare(season, current, binning, level, block_days, permutations, random)
    adjusted = benjamini_yekutieli(whole.p_values)
    again = None if before is None else benjamini_yekutieli(before.p_values)
    features = tuple(
        FeatureShift(
            feature=name,
            distance=float(whole.distances[i]),
            usual_distance=float(whole.usual[i]),
            p_value=float(whole.p_values[i]),
            adjusted_p_value=float(adjusted[i]),
            season_adjusted_p_value=None if again is None else float(again[i]),
            drifted=bool(adjusted[i] <= level and (again is None or again[i] <= level)),
        )
        for i, name in enumerate(binning.features)
    )
    return DriftVerdict(
        days=len(current.days),
        reference_days=len(reference.days),
        season=None if season is None else _span(season),
        p_value=whole.overall if before is None else max(whole.overall, before.overall),
        level=level,
        block_days=block_days,
        permutations=permutations,
        seed=seed,
        features=features,
    )


def drift_verdict(
    trained_on: pd.DataFrame, answers: pd.DataFrame, inputs: Mapping[str, Kind], config: MonitorConfig, seed: int
) -> DriftVerdict | None:
    """`judge_drift` from rows with `event_timestamp`, by the rules of `[monitor]`; None where no day was trained on before.

    Training days from the window on are left out: they cannot tell what was before it.
    """
    if answers.empty:
        return None
    start = answers["event_timestamp"].min().floor("D")
    before = trained_on[trained_on["event_timestamp"] < start]
    if before.empty:
        return None
    binning = fit_binning(before, inputs)
    sides = (count_days(before, binning), count_days(answers, binning))
    return judge_drift(*sides, binning, level=config.drift_level, block_days=config.block_days, seed=seed)


def permutations_for(features: int, level: float) -> int:
    """So many draws that one feature alone, among this many, can be found at `level`.

    At most `MOST_PERMUTATIONS`, with which one of very many is found only together with others.
    """
    harmonic = sum(1 / k for k in range(1, features + 1))
    return min(math.ceil(2 * features * harmonic / level), MOST_PERMUTATIONS)


def benjamini_yekutieli(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """P values that may each be held against the wanted share of false discoveries, however the tests depend."""
    found = np.asarray(p_values, dtype=np.float64)
    count = len(found)
    order = np.argsort(found, kind="stable")[::-1]
    rank = np.arange(count, 0, -1)
    stepped = np.minimum.accumulate(found[order] * count / rank * np.sum(1 / np.arange(1, count + 1)))
    adjusted = np.empty_like(found)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def distances(one: NDArray[np.float64], other: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(…, features) Jensen-Shannon distance, base 2, between histograms of (…, bins) whose features begin at `starts`."""
    p = one / np.maximum(_spread(one, starts), 1)
    q = other / np.maximum(_spread(other, starts), 1)
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    found: NDArray[np.float64] = np.sqrt(np.maximum(np.add.reduceat(parts, starts, axis=-1) / 2, 0.0))
    return found


def _spread(counts: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each feature's total, at each of its bins."""
    widths = np.diff(np.append(starts, counts.shape[-1]))
    return np.repeat(np.add.reduceat(counts, starts, axis=-1), widths, axis=-1)


def _compare(
    reference: DayCounts,
    current: DayCounts,
    binning: Binning,
    level: float,
    block_days: int,
    permutations: int,
    random: np.random.Generator,
) -> _Compared:
    blocks, newest = _blocks(reference, current, block_days)
    everything, starts = blocks.sum(axis=0), binning.starts
    now = blocks[-newest:].sum(axis=0)
    seen = distances(now, everything - now, starts)
    drawn = np.empty((permutations, len(starts)))
    for at in range(0, permutations, _DRAWS_AT_ONCE):
        lots = random.random((min(_DRAWS_AT_ONCE, permutations - at), len(blocks)))
        chosen = np.argpartition(lots, newest - 1, axis=1)[:, :newest]
        taken = np.zeros_like(lots)
        np.put_along_axis(taken, chosen, 1.0, axis=1)
        some = taken @ blocks
        drawn[at : at + len(lots)] = distances(some, everything - some, starts)
    at_least = (drawn >= seen - 1e-12).sum(axis=0)  # equal up to rounding is equal: the draw that is what was seen
    centre, scale = drawn.mean(axis=0), np.maximum(drawn.std(axis=0), 1e-9)
    largest = ((drawn - centre) / scale).max(axis=1)
    beyond = int((largest >= ((seen - centre) / scale).max() - 1e-9).sum())
    return _Compared(
        distances=seen,
        usual=np.quantile(drawn, 1 - level, axis=0),
        p_values=(at_least + 1) / (permutations + 1),
        overall=(beyond + 1) / (permutations + 1),
    )


def _blocks(reference: DayCounts, current: DayCounts, block_days: int) -> tuple[NDArray[np.float64], int]:
    """(blocks, bins) counts, the current ones last, and how many those are; blocks are laid from the current days' end."""
    both = reference + current
    end = current.days.max()
    number = (end - both.days).astype(np.int64) // block_days
    newest = len(np.unique(number[both.days >= current.days.min()]))
    kept, place = np.unique(-number, return_inverse=True)
    blocks = np.zeros((len(kept), both.counts.shape[1]))
    np.add.at(blocks, place, both.counts)
    return blocks, newest


def _same_season(reference: DayCounts, current: DayCounts, block_days: int) -> DayCounts | None:
    """The reference's days about a year before the current ones; None where they are no more than those."""
    first, last = current.days.min() - YEAR, current.days.max() - YEAR
    season = reference[(reference.days >= first - SEASON) & (reference.days <= last + SEASON)]
    return season if len(season.days) // block_days > len(current.days) // block_days else None


def _require(reference: DayCounts, current: DayCounts) -> None:
    if not len(reference.days) or not len(current.days):
        raise DataError("a drift check needs days on both sides; choose a window and a reference that have rows")
    if reference.days.max() >= current.days.min():
        raise DataError(
            f"the reference goes on to {reference.days.max()}, the window starts on {current.days.min()}: "
            "days must be on one side or the other. Compare with rows from before the window."
        )


def _span(counts: DayCounts) -> Window:
    first, last = (int(day.astype("datetime64[s]").astype(np.int64)) for day in (counts.days[0], counts.days[-1]))
    return Window(start=datetime.fromtimestamp(first, UTC), end=datetime.fromtimestamp(last + 86_400, UTC))
