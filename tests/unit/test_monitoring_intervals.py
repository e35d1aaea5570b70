"""Figures with intervals by days, of outcomes that are certain, likely or weighted."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.evaluation import calibration_gap, score_rows
from evergreen.figures import auc_pulls, roc_auc
from evergreen.monitoring.intervals import auc_of, blocks, figures_by_days

START = datetime(2013, 4, 1, tzinfo=UTC)


def some_rows(days: int, seed: int, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and days; each day has a level of its own that the scores do not know."""
    random = np.random.default_rng(seed)
    place = np.repeat(np.arange(days), random.integers(80, 200, days))
    odds = -1.2 + random.normal(0, 0.8, len(place))
    chance = 1 / (1 + np.exp(-odds - random.normal(0, spread, days)[place]))
    return (random.random(len(place)) < chance).astype(float), 1 / (1 + np.exp(-odds)), place


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_figures_are_those_of_evaluation(task: str) -> None:
    labels, scores, place = some_rows(7, 1)
    truth = labels
    if task == "multiclass":
        labels = np.random.default_rng(0).integers(0, 3, len(labels)).astype(float)
        scores = np.stack([scores, (1 - scores) * 0.7, (1 - scores) * 0.3], axis=1)
        truth = np.asarray(labels[:, None] == np.arange(3), dtype=float)
    elif task == "regression":
        labels = truth = labels * 30 + scores

    found = figures_by_days(task, truth, scores, place)  # type: ignore[arg-type]

    expected = score_rows(labels, scores, task)  # type: ignore[arg-type]
    for name in {"log_loss", "mse", "auc", "accuracy"} & expected.figures.keys():
        assert found[name].figure == pytest.approx(expected[name])
    assert found["calibration_gap"].figure == pytest.approx(calibration_gap(expected)[0])


def test_intervals_hold_what_is_true_about_as_often_as_they_say() -> None:
    wide_labels, wide_scores, wide_place = some_rows(3_000, 0)
    truth = {name: i.figure for name, i in figures_by_days("binary", wide_labels, wide_scores, wide_place % 5).items()}
    tries = 200

    held = dict.fromkeys(truth, 0)
    for seed in range(tries):
        for name, interval in figures_by_days("binary", *some_rows(7, 1_000 + seed), seed=seed).items():
            assert interval.low is not None
            assert interval.high is not None
            held[name] += interval.low <= truth[name] <= interval.high

    assert {name: count / tries > 0.88 for name, count in held.items()} == dict.fromkeys(truth, True)


def test_rows_of_one_day_are_not_taken_for_as_many_days() -> None:
    labels, scores, place = some_rows(7, 3)
    one, ten = (
        figures_by_days("binary", np.repeat(labels, n), np.repeat(scores, n), np.repeat(place, n))["log_loss"]
        for n in (1, 10)
    )

    assert one.low is not None
    assert one.high is not None
    assert [ten.low, ten.high] == pytest.approx([one.low, one.high])


def test_two_days_have_figures_without_bounds() -> None:
    found = figures_by_days("binary", *some_rows(2, 1))

    assert all(interval.low is None and interval.high is None for interval in found.values())


def test_one_class_alone_has_no_auc() -> None:
    labels, scores, place = some_rows(4, 1)

    assert "auc" not in figures_by_days("binary", np.zeros_like(labels), scores, place)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=40))
def test_the_auc_and_its_pulls_are_delongs_where_outcomes_are_certain(rows: list[tuple[bool, int]]) -> None:
    labels = np.array([label for label, _ in rows], dtype=float)
    scores = np.array([score for _, score in rows], dtype=float)
    if labels.min() == labels.max():
        return

    auc, pulls = auc_of(labels, 1 - labels, scores)

    assert auc == pytest.approx(roc_auc(labels, scores))
    np.testing.assert_allclose(pulls, auc_pulls(labels, scores), atol=1e-12)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(1, 4)), min_size=2, max_size=25))
def test_a_weight_is_as_many_rows(rows: list[tuple[bool, int, int]]) -> None:
    labels, scores, counts = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    if labels.min() == labels.max():
        return
    said = scores / 8 + 0.2
    times = counts.astype(int)

    weighted = figures_by_days("binary", labels, said, np.zeros(len(rows), dtype=np.int64), weights=counts)
    repeated = figures_by_days(
        "binary", np.repeat(labels, times), np.repeat(said, times), np.zeros(times.sum(), dtype=np.int64)
    )

    assert {n: i.figure for n, i in weighted.items()} == pytest.approx({n: i.figure for n, i in repeated.items()})


def test_blocks_are_laid_from_the_newest_day_back() -> None:
    moments = pd.Series(pd.to_datetime([START + timedelta(days=d, hours=h) for d in range(5) for h in (0, 23)]))

    place = blocks(moments, 2)

    assert len(set(place[-4:])) == 1
    assert len(set(place)) == 3
    assert len(set(place[:2]) & set(place[2:])) == 0
