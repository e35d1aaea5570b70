"""Figures of a window whose outcomes are partly out."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.errors import DataError
from evergreen.monitoring.censoring import arrived_by, censored_performance
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.monitoring.windows import in_window
from evergreen.spec import MonitorConfig
from evergreen.types import CensoredPerformance, Task, Window

START = datetime(2013, 4, 1, tzinfo=UTC)
AS_OF = pd.Timestamp(START) + pd.Timedelta(days=28)
WINDOW = Window(start=START + timedelta(days=21), end=START + timedelta(days=28))
CONFIG = MonitorConfig(min_labels=300)


def answers(seed: int, *, task: Task = "binary", slow: float = 56.0, fast: float = 20.0) -> pd.DataFrame:
    """28 days of scores that are too low, with outcomes of which the large ones take `slow` hours, the others `fast`."""
    random = np.random.default_rng(seed)
    rows = 28 * 400
    odds = random.normal(-1, 1, rows)
    chance = 1 / (1 + np.exp(-odds))
    if task == "regression":
        score = 10 * odds
        label = score + 3 + random.normal(0, 8, rows)
        large = label > 5
    else:
        score = chance
        label = (random.random(rows) < np.clip(chance + 0.08, 0, 1)).astype(float)
        large = label == 1
    asked = START + pd.to_timedelta(np.sort(random.uniform(0, 28 * 24, rows)), unit="h")
    delay = np.where(large, random.gamma(4, slow / 4, rows), random.gamma(2, fast / 2, rows))
    return pd.DataFrame(
        {
            "event_timestamp": asked,
            "score": score,
            "label": label,
            "label_timestamp": asked + pd.to_timedelta(delay, unit="h"),
        }
    )


def as_known(frame: pd.DataFrame) -> pd.DataFrame:
    late = frame["label_timestamp"] > AS_OF
    return frame.assign(label=frame["label"].mask(late), label_timestamp=frame["label_timestamp"].mask(late))


def corrected(frame: pd.DataFrame, task: Task = "binary") -> CensoredPerformance:
    found = censored_performance(as_known(frame), WINDOW, as_of=AS_OF, task=task, config=CONFIG, seed=0)
    assert found is not None
    return found


def truth(frame: pd.DataFrame, found: CensoredPerformance, task: Task = "binary") -> dict[str, float]:
    """The figures had all outcomes of the answers that are spoken of been in."""
    rows = in_window(frame, WINDOW)
    rows = rows[rows["event_timestamp"] < AS_OF - pd.Timedelta(hours=found.min_age_hours - 1)]
    assert len(rows) == found.rows
    place = blocks(rows["event_timestamp"], 1)
    figures = figures_by_days(task, rows["label"].to_numpy(), rows["score"].to_numpy(), place)
    return {name: interval.figure for name, interval in figures.items()}


@given(st.integers(0, 10_000), st.floats(30, 90), st.floats(8, 25))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_corrected_figures_are_nearer_to_what_will_be_true(seed: int, slow: float, fast: float) -> None:
    frame = answers(seed, slow=slow, fast=fast)
    found = corrected(frame)
    true = truth(frame, found)

    for name in ("log_loss", "calibration_gap"):
        naive, better = abs(found.naive[name] - true[name]), abs(found.figures[name].figure - true[name])
        assert better < max(naive, 0.012)  # where delays hardly differ neither is far off


def test_what_the_naive_figures_miss_is_much_and_what_the_corrected_ones_miss_little() -> None:
    naive, better = [], []
    for seed in range(10):
        frame = answers(seed)
        found = corrected(frame)
        true = truth(frame, found)
        naive.append(found.naive["calibration_gap"] - true["calibration_gap"])
        better.append(found.figures["calibration_gap"].figure - true["calibration_gap"])

    assert np.mean(naive) > 0.03
    assert abs(np.mean(better)) < 0.005


def test_a_regression_is_corrected_too() -> None:
    frame = answers(1, task="regression")
    found = corrected(frame, "regression")

    true = truth(frame, found, "regression")["mse"]

    assert abs(found.figures["mse"].figure - true) < abs(found.naive["mse"] - true)


def test_where_every_outcome_is_in_there_is_nothing_to_correct() -> None:
    frame = answers(1)

    assert censored_performance(frame, WINDOW, as_of=AS_OF, task="binary", config=CONFIG, seed=0) is None


def test_few_outcomes_are_not_enough() -> None:
    config = MonitorConfig(min_labels=50_000)

    assert censored_performance(as_known(answers(1)), WINDOW, as_of=AS_OF, task="binary", config=config, seed=0) is None


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="label_timestamp"):
        censored_performance(
            answers(1).drop(columns="label_timestamp"), WINDOW, as_of=AS_OF, task="binary", config=CONFIG, seed=0
        )


def test_the_share_in_by_an_hour_does_not_mistake_the_young_for_the_fast() -> None:
    random = np.random.default_rng(0)
    delays, ages = random.integers(0, 50, 60_000), random.integers(0, 100, 60_000)
    seen = delays <= ages

    share = arrived_by(delays[seen], ages[seen])

    expected = np.minimum((np.arange(100) + 1) / 50, 1)
    assert np.abs(share - expected).max() < 0.02
    assert (delays[seen] < 25).mean() > 0.55  # what the share of those seen would have said


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60))
def test_the_share_in_never_falls_and_ends_at_one(rows: list[tuple[int, int]]) -> None:
    delays, ages = np.array([(d, d + more) for d, more in rows]).T

    share = arrived_by(delays, ages)

    assert (np.diff(share) >= -1e-12).all()
    assert share[-1] == 1.0
    assert len(share) == ages.max() + 1
