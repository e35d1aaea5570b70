"""Alarms of drift that mean something: days are exchanged, not rows."""

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError
from evergreen.monitoring.drift import (
    benjamini_yekutieli,
    distances,
    drift_verdict,
    judge_drift,
    permutations_for,
)
from evergreen.monitoring.sketch import Binning, DayCounts, Kind, count_days, fit_binning
from evergreen.spec import MonitorConfig

INPUTS: dict[str, Kind] = {"warmth": "numeric", "load": "numeric", "airline": "categorical"}
START = np.datetime64("2021-01-04", "us")


def days_of(count: int, *, seed: int, first: int = 0, shift: float = 0.0, rows: int = 60) -> pd.DataFrame:
    """Rows whose days have a level of their own, as weather has: a test over rows takes that for drift."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(first, first + count), rows)
    level = np.repeat(random.normal(size=count), rows)
    minutes = np.tile(np.arange(rows) * (1440 // rows), count)
    return pd.DataFrame(
        {
            "event_timestamp": pd.to_datetime(
                START + day.astype("timedelta64[D]") + minutes.astype("timedelta64[m]"), utc=True
            ),
            "warmth": level * 2 + random.normal(size=len(day)) + shift,
            "load": random.normal(size=len(day)),
            "airline": random.choice(["AA", "BB", "CC"], size=len(day)),
        }
    )


def alarms(seed: int, shift: float = 0.0) -> bool:
    reference, current = days_of(40, seed=seed), days_of(7, seed=1_000 + seed, first=40, shift=shift)
    binning = fit_binning(reference, INPUTS)
    verdict = judge_drift(
        count_days(reference, binning), count_days(current, binning), binning, level=0.05, block_days=1, seed=seed
    )
    return any(feature.drifted for feature in verdict.features) or verdict.p_value <= 0.05


def test_days_that_differ_as_days_do_are_no_drift() -> None:
    assert sum(alarms(seed) for seed in range(40)) <= 6  # at 5% each: 7 or more has a chance below 1%


def test_a_moved_feature_is_found_and_named_and_others_are_not() -> None:
    reference, current = days_of(60, seed=1), days_of(7, seed=2, first=60, shift=6.0)

    verdict = drift_verdict(reference, current, INPUTS, MonitorConfig(), seed=3)

    assert verdict is not None
    assert [feature.feature for feature in verdict.features if feature.drifted] == ["warmth"]
    assert verdict.p_value < 0.01
    assert verdict.share == pytest.approx(1 / 3)


def test_a_season_that_returns_is_no_drift_beside_the_year_before() -> None:
    year = days_of(365, seed=4)
    summer = (year["event_timestamp"].dt.dayofyear >= 180) & (year["event_timestamp"].dt.dayofyear < 230)
    year.loc[summer, "warmth"] += 6.0
    current = days_of(7, seed=5, first=365 + 200, shift=6.0)

    verdict = drift_verdict(year, current, INPUTS, MonitorConfig(), seed=3)

    assert verdict is not None
    assert verdict.season is not None
    warmth = verdict.features[0]
    assert warmth.adjusted_p_value <= 0.05  # beside the whole year it stands out
    assert not warmth.drifted


def test_the_same_seed_gives_the_same_verdict_in_any_order_of_rows() -> None:
    reference, current = days_of(30, seed=1), days_of(7, seed=2, first=30)

    once = drift_verdict(reference, current, INPUTS, MonitorConfig(), seed=3)
    again = drift_verdict(reference.sample(frac=1, random_state=1), current, INPUTS, MonitorConfig(), seed=3)

    assert once is not None
    assert again is not None
    assert [f.feature for f in once.features] == [f.feature for f in again.features]
    # The quantiles are read off the same rows here, since there are few; so everything is equal.
    assert once == again


def test_counts_of_parts_add_up_to_the_counts_of_the_whole() -> None:
    frame = days_of(5, seed=1)
    frame.loc[::7, "warmth"] = np.nan
    frame.loc[::9, "airline"] = None
    binning = fit_binning(frame, INPUTS)
    whole = count_days(frame, binning)

    parts = count_days(frame.iloc[:101], binning) + count_days(frame.iloc[101:], binning)

    assert (parts.days == whole.days).all()
    assert (parts.counts == whole.counts).all()
    assert whole.counts.sum() == 3 * len(frame)


def test_missing_and_unseen_values_have_bins_of_their_own() -> None:
    reference = days_of(5, seed=1)
    binning = fit_binning(reference, INPUTS)
    current = days_of(1, seed=2, first=5).assign(warmth=np.nan, airline="ZZ")

    counts = count_days(current, binning).counts[0]

    warmth, _, airline = np.split(counts, binning.starts[1:])
    assert warmth[-1] == len(current)
    assert airline[-2] == len(current)


def test_a_longer_block_is_exchanged_whole() -> None:
    reference, current = days_of(35, seed=1), days_of(7, seed=2, first=35, shift=6.0)
    binning = fit_binning(reference, INPUTS)

    verdict = judge_drift(
        count_days(reference, binning), count_days(current, binning), binning, level=0.05, block_days=7, seed=0
    )

    assert verdict.p_value > 0.1  # of six blocks one must come last: nothing below a sixth can be said


@pytest.mark.parametrize(("reference", "current"), [(0, 7), (7, 0)])
def test_a_side_without_days_is_refused(reference: int, current: int) -> None:
    binning = fit_binning(days_of(5, seed=1), INPUTS)
    none = DayCounts(np.empty(0, dtype="datetime64[D]"), np.zeros((0, binning.bins), dtype=np.int64))
    some = count_days(days_of(7, seed=1), binning)

    with pytest.raises(DataError, match="needs days on both sides"):
        judge_drift(some if reference else none, some if current else none, binning, level=0.05, block_days=1, seed=0)


def test_days_on_both_sides_are_refused() -> None:
    binning = fit_binning(days_of(5, seed=1), INPUTS)
    counts = count_days(days_of(5, seed=1), binning)

    with pytest.raises(DataError, match="one side or the other"):
        judge_drift(counts, counts, binning, level=0.05, block_days=1, seed=0)


def test_distances_are_zero_for_equal_shares_and_one_for_disjoint_ones() -> None:
    starts = np.array([0, 2])
    one, other = np.array([3.0, 1.0, 5.0, 0.0]), np.array([6.0, 2.0, 0.0, 2.0])

    assert distances(one, other, starts) == pytest.approx([0.0, 1.0])


def test_corrected_p_values_are_those_of_the_textbook() -> None:
    # Three tests: harmonic sum 11/6; p * 3 / rank * 11/6, made monotone from the largest down.
    assert benjamini_yekutieli([0.01, 0.04, 0.03]) == pytest.approx([0.055, 0.04 * 11 / 6, 0.04 * 11 / 6])


def test_one_feature_among_many_can_be_found() -> None:
    count = permutations_for(50, 0.05)
    least = [1 / (count + 1), *[1.0] * 49]

    assert benjamini_yekutieli(least)[0] <= 0.05


def test_a_feature_without_any_value_has_one_bin_that_counts() -> None:
    frame = days_of(5, seed=1).assign(warmth=np.nan)
    binning: Binning = fit_binning(frame, INPUTS)

    assert len(binning.edges["warmth"]) == 0
    assert count_days(frame, binning).counts.sum() == 3 * len(frame)
