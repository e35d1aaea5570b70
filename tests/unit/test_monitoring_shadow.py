"""Two versions on the same rows, whichever of them answered."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError
from evergreen.figures import row_losses
from evergreen.monitoring.performance import live_figures
from evergreen.monitoring.shadow import MIN_ROWS_A_DAY, paired_days, said_by

START = datetime(2013, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def both(rows: int = 400, days: int = 4, *, worse: float = 0.0) -> pd.DataFrame:
    """Every third row was answered by version 2, and the other version stood beside."""
    rng = np.random.default_rng(3)
    chance = rng.uniform(0.2, 0.8, rows)
    first, second = chance, np.clip(chance + worse, 0.01, 0.99)
    by_second = np.arange(rows) % 3 == 0
    return pd.DataFrame(
        {
            "event_timestamp": pd.date_range(START, periods=rows, freq=f"{days * 1440 // rows}min"),
            "version": np.where(by_second, 2, 1),
            "score": np.where(by_second, second, first),
            "latency_ms": np.where(by_second, 9.0, 3.0),
            "label": (rng.uniform(size=rows) < chance).astype(float),
            "shadow_version": np.where(by_second, 1.0, 2.0),
            "shadow_score": np.where(by_second, first, second),
            "shadow_latency_ms": np.where(by_second, 3.0, 9.0),
        }
    )


def pair(frame: pd.DataFrame, as_of: datetime = START + 9 * DAY) -> dict[date, float]:
    return paired_days(frame, champion=1, challenger=2, as_of=as_of, min_label_share=0.8)


def test_a_version_said_something_of_every_row_whoever_answered() -> None:
    frame = both(worse=0.1)

    said = said_by(frame, 2)

    assert len(said) == len(frame)
    assert said["event_timestamp"].is_monotonic_increasing
    assert set(said["latency_ms"]) == {9.0}
    assert live_figures(frame, 1).rows == live_figures(frame, 2).rows == 400


def test_equal_versions_differ_by_nothing_on_any_day() -> None:
    assert pair(both()) == {date(2013, 4, day): 0.0 for day in (1, 2, 3, 4)}


def test_a_days_difference_is_the_mean_over_its_rows_on_both_sides_of_the_split() -> None:
    frame = both(worse=0.3)
    day = frame[frame["event_timestamp"] < START + DAY]
    second = day["score"].where(day["version"] == 2, day["shadow_score"]).to_numpy()
    first = day["score"].where(day["version"] == 1, day["shadow_score"]).to_numpy()
    labels = day["label"].to_numpy()

    found = pair(frame)

    rises = row_losses("binary", labels, second) - row_losses("binary", labels, first)
    assert found[date(2013, 4, 1)] == pytest.approx(np.mean(rises))
    assert list(found) == sorted(found)


def test_a_regressions_days_are_in_shares_of_the_champions_error() -> None:
    frame = both().assign(label=0.0, score=1.0, shadow_score=1.0)
    second = frame["version"] == 2
    frame.loc[second, "score"] = frame.loc[~second, "shadow_score"] = 1.1  # squared 1.21 beside 1

    found = [
        paired_days(one, champion=1, challenger=2, as_of=START + 9 * DAY, min_label_share=0.8, task="regression")
        for one in (frame, frame.assign(score=frame["score"] * 50, shadow_score=frame["shadow_score"] * 50))
    ]

    assert list(found[0].values()) == pytest.approx([0.21] * 4)
    assert list(found[1].values()) == pytest.approx([0.21] * 4)


def test_of_more_than_two_classes_the_probabilities_are_compared_on_both_sides() -> None:
    first, second = {"0": 0.5, "1": 0.3, "2": 0.2}, {"0": 0.2, "1": 0.2, "2": 0.6}
    frame = both().assign(label=2.0)
    answered_by_second = (frame["version"] == 2).tolist()
    frame["probabilities"] = pd.Series([second if mine else first for mine in answered_by_second])
    frame["shadow_probabilities"] = pd.Series([first if mine else second for mine in answered_by_second])

    days = paired_days(frame, champion=1, challenger=2, as_of=START + 9 * DAY, min_label_share=0.8, task="multiclass")
    figures = live_figures(frame, 2, "multiclass")

    assert list(days.values()) == pytest.approx([np.log(0.2) - np.log(0.6)] * 4)
    assert figures.labelled == 400
    assert figures.scores is not None
    assert figures.scores.loss == pytest.approx(-np.log(0.6))


def test_pairs_of_before_the_other_versions_probabilities_were_kept_are_left_out() -> None:
    frame = both().assign(label=2.0, shadow_probabilities=None)
    frame["probabilities"] = pd.Series([{"0": 0.5, "1": 0.3, "2": 0.2}] * len(frame))

    days = paired_days(frame, champion=1, challenger=2, as_of=START + 9 * DAY, min_label_share=0.8, task="multiclass")

    assert days == {}


def test_a_day_counts_once_it_is_over_and_its_outcomes_are_in() -> None:
    frame = both()
    second_day = (frame["event_timestamp"] >= START + DAY) & (frame["event_timestamp"] < START + 2 * DAY)
    frame.loc[second_day & (frame.index % 4 == 0), "label"] = np.nan

    assert [day.day for day in pair(frame, START + 3.5 * DAY)] == [1, 3]


def test_a_day_of_a_few_rows_does_not_count() -> None:
    frame = both(rows=MIN_ROWS_A_DAY - 1, days=1)

    assert pair(frame) == {}


def test_rows_on_which_a_version_failed_are_failures_and_no_pairs() -> None:
    frame = both()
    frame.loc[frame.index % 3 == 1, "shadow_score"] = np.nan  # of version 2, beside version 1

    figures = live_figures(frame, 2)

    assert (figures.rows, figures.failed) == (400, 133)
    assert len(pair(frame)) == 4


def test_a_frame_without_shadows_names_what_it_lacks() -> None:
    with pytest.raises(DataError, match="shadow_version"):
        said_by(both().drop(columns="shadow_version"), 1)
