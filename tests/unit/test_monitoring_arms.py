"""Two arms of an A/B test, from the prediction log's rows to a difference by days; and how often it errs."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from evergreen.ab_test import difference
from evergreen.errors import DataError
from evergreen.figures import row_losses
from evergreen.monitoring.arms import compare_arms
from evergreen.monitoring.shadow import MIN_ROWS_A_DAY
from evergreen.types import AbTestFigures, Task

START = datetime(2013, 4, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def answers(days: int = 4, a_day: int = 400, *, worse: float = 0.0, seed: int = 3) -> pd.DataFrame:
    """Each row an entity of its own; version 2 answers the odd ones."""
    rng, rows = np.random.default_rng(seed), days * a_day
    chance, odd = rng.uniform(0.2, 0.8, rows), np.arange(rows) % 2 == 1
    return pd.DataFrame(
        {
            "event_timestamp": pd.date_range(START, periods=rows, freq=f"{1440 * 60 // a_day}s"),
            "version": np.where(odd, 2, 1),
            "score": np.where(odd, np.clip(chance + worse, 0.01, 0.99), chance),
            "label": (rng.uniform(size=rows) < chance).astype(float),
            "routed_by": [f"e{number}" for number in range(rows)],
        }
    )


def arms(frame: pd.DataFrame, as_of: datetime = START + 99 * DAY, task: Task = "binary") -> AbTestFigures:
    return compare_arms(frame, champion=1, challenger=2, as_of=as_of, min_label_share=0.8, task=task)


def test_a_days_difference_is_between_the_means_of_its_two_sides() -> None:
    frame = answers(worse=0.3)
    day = frame[frame["event_timestamp"] < START + DAY]
    losses = row_losses("binary", day["label"].to_numpy(), day["score"].to_numpy())
    second = (day["version"] == 2).to_numpy()

    found = arms(frame)

    assert found.days[0] == pytest.approx(losses[second].mean() - losses[~second].mean())
    assert (len(found.days), found.champion.entities, found.challenger.labelled) == (4, 800, 800)
    assert found.entity_error == pytest.approx(0.0, abs=1e-9)


def test_days_that_are_not_over_or_wait_for_outcomes_do_not_count() -> None:
    frame = answers()
    second_day = (frame["event_timestamp"] >= START + DAY) & (frame["event_timestamp"] < START + 2 * DAY)
    frame.loc[second_day & (frame.index % 3 == 0), "label"] = np.nan

    found = arms(frame, START + 3.5 * DAY)

    assert len(found.days) == 2
    assert found.champion.rows == 600  # met, whether or not the outcome is in


def test_a_day_on_which_one_side_has_next_to_no_outcomes_does_not_count() -> None:
    frame = answers(days=2)
    thin = frame[(frame["version"] == 1) | (frame["event_timestamp"] >= START + DAY) | (frame.index < MIN_ROWS_A_DAY)]

    assert len(arms(thin).days) == 1


def test_entities_that_met_both_versions_are_told_and_on_neither_side() -> None:
    frame = answers()
    frame.loc[frame.index < 10, "routed_by"] = "e0"

    found = arms(frame)

    assert (found.crossed, found.champion.entities, found.challenger.entities) == (1, 795, 795)


def test_rows_outside_the_test_are_left_out() -> None:
    frame = answers()
    outside = frame.assign(routed_by=None, score=0.999)
    third = frame.assign(version=3)

    assert arms(pd.concat([frame, outside, third], ignore_index=True)) == arms(frame)


def test_nothing_answered_is_two_empty_sides() -> None:
    found = arms(answers().iloc[:0])

    assert (found.days, found.champion.entities, found.challenger.loss) == ((), 0, None)


def test_a_regression_is_compared_in_shares_of_the_champions_error() -> None:
    draw, frame = np.random.default_rng(1), answers()
    frame["label"] = draw.normal(size=len(frame)) * 100
    frame["score"] = 0.0

    found = arms(frame, task="regression")

    bigger = arms(frame.assign(label=frame["label"] * 7), task="regression")
    assert bigger.days == pytest.approx(found.days)
    assert max(map(abs, found.days)) < 0.5


def test_of_more_than_two_classes_every_probability_counts() -> None:
    frame = answers()
    sure = [{"a": 0.1, "b": 0.1, "c": 0.8} if v == 2 else {"a": 0.6, "b": 0.2, "c": 0.2} for v in frame["version"]]
    frame = frame.assign(label=2.0, probabilities=pd.Series(sure), score=0.8)

    found = arms(frame, task="multiclass")

    assert found.days == pytest.approx([np.log(0.2) - np.log(0.8)] * 4)


def test_a_frame_without_routes_names_what_it_lacks() -> None:
    with pytest.raises(DataError, match="routed_by"):
        arms(answers().drop(columns="routed_by"))


def a_returning_crowd(rng: np.random.Generator, entities: int, days: int) -> pd.DataFrame:
    """Equal versions: entities differ for good, days rise and fall for all, and nearly all come nearly every day."""
    arm, own = rng.integers(1, 3, entities), rng.normal(0.0, 1.0, entities)
    who, day = np.nonzero(rng.uniform(size=(entities, days)) < 0.9)
    score = own[who] + rng.normal(0.0, 0.2, days)[day] + rng.normal(0.0, 0.3, len(who))
    return pd.DataFrame(
        {
            "event_timestamp": START + pd.to_timedelta(day, unit="D"),
            "version": arm[who],
            "score": score,
            "label": 0.0,
            "routed_by": who.astype(str),
        }
    )


def test_equal_versions_on_people_who_return_are_seldom_taken_for_different_at_any_look() -> None:
    """95% at all looks together; by the days alone far more of them are."""
    rng, tests, days = np.random.default_rng(11), 30, 16
    caught = {"both": 0, "days alone": 0}
    for _ in range(tests):
        crowd = a_returning_crowd(rng, 300, days)
        looks = [arms(crowd, START + day * DAY, "regression") for day in range(4, days + 1, 4)]
        found = {
            "both": [difference(look, 0.95) for look in looks],
            "days alone": [difference(look.model_copy(update={"entity_error": 0.0}), 0.95) for look in looks],
        }
        for name, intervals in found.items():
            caught[name] += any(one.low > 0.0 or one.high < 0.0 for one in intervals)

    assert caught["both"] <= 0.05 * tests
    assert caught["days alone"] > 0.2 * tests
