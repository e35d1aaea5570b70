"""Figures of classes and numbers agree with scikit-learn's, and do not depend on how classes are numbered or labels measured."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from evergreen.errors import DataError
from evergreen.evaluation import calibration_gap, evaluate, score_rows
from evergreen.figures import Floats, auc_pulls, calibration_error, pulls_of, reliability, row_losses
from evergreen.types import Evaluation, Scores, Task
from tests.factories import a_digest, a_window

SEEDS = st.integers(0, 10_000)


def some_classes(seed: int, rows: int = 200, classes: int = 3) -> tuple[Floats, Floats]:
    """Labels and probabilities that tell something of them; every class is there."""
    draw = np.random.default_rng(seed)
    scores = draw.dirichlet(np.ones(classes), rows)
    labels = np.array([draw.choice(classes, p=chances) for chances in scores], dtype=np.float64)
    labels[:classes] = np.arange(classes)
    return labels, scores


def some_numbers(seed: int, rows: int = 200) -> tuple[Floats, Floats]:
    draw = np.random.default_rng(seed)
    scores = draw.normal(10.0, 20.0, rows)
    return scores + draw.normal(1.0, 15.0, rows), scores


@given(SEEDS)
def test_the_figures_of_classes_are_scikit_learns(seed: int) -> None:
    labels, scores = some_classes(seed)

    found = score_rows(labels, scores, "multiclass")

    assert found.task == "multiclass"
    assert found.loss == found["log_loss"] == pytest.approx(metrics.log_loss(labels, scores))
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores, multi_class="ovr"))
    assert found["accuracy"] == metrics.accuracy_score(labels, scores.argmax(axis=1))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, scores, scale_by_half=False))
    assert [found[f"base_rate_{k}"] for k in range(3)] == pytest.approx(np.bincount(labels.astype(int)) / 200)
    assert [found[f"mean_score_{k}"] for k in range(3)] == pytest.approx(scores.mean(axis=0))
    assert found["classes"] == 3


@given(SEEDS)
def test_the_figures_of_numbers_are_scikit_learns(seed: int) -> None:
    labels, scores = some_numbers(seed)

    found = score_rows(labels, scores, "regression")

    assert found.loss == found["mse"] == pytest.approx(metrics.mean_squared_error(labels, scores))
    assert found["rmse"] == pytest.approx(found["mse"] ** 0.5)
    assert found["mae"] == pytest.approx(metrics.mean_absolute_error(labels, scores))
    assert found["r2"] == pytest.approx(metrics.r2_score(labels, scores))
    assert found["bias"] == pytest.approx(found["mean_score"] - found["mean_label"])
    assert "auc" not in found.figures


@given(SEEDS)
def test_two_classes_have_the_losses_the_ranking_and_the_pulls_of_a_binary_label(seed: int) -> None:
    labels, scores = some_classes(seed, classes=2)
    one = scores[:, 1]

    assert row_losses("multiclass", labels, scores) == pytest.approx(row_losses("binary", labels, one))
    assert score_rows(labels, scores, "multiclass")["auc"] == pytest.approx(score_rows(labels, one)["auc"])
    assert pulls_of("multiclass", labels, scores) == pytest.approx(auc_pulls(labels, one))


@given(SEEDS, st.permutations([0, 1, 2]))
def test_the_figures_do_not_depend_on_how_classes_are_numbered(seed: int, order: list[int]) -> None:
    labels, scores = some_classes(seed)
    renumbered = np.array([order.index(int(label)) for label in labels])

    before, after = score_rows(labels, scores, "multiclass"), score_rows(renumbered, scores[:, order], "multiclass")

    for name in ("log_loss", "brier", "accuracy", "auc", "calibration_error", "score_std", "min_score", "max_score"):
        assert after[name] == pytest.approx(before[name]), name
    assert [after[f"base_rate_{k}"] for k in range(3)] == pytest.approx([before[f"base_rate_{k}"] for k in order])


@given(SEEDS, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_a_regressions_shares_do_not_depend_on_the_labels_unit(seed: int, unit: float, zero: float) -> None:
    labels, scores = some_numbers(seed)

    before = score_rows(labels, scores, "regression")
    after = score_rows(labels * unit + zero, scores * unit + zero, "regression")

    assert after["mse"] == pytest.approx(before["mse"] * unit**2, rel=1e-4)
    for name in ("r2", "calibration_error"):
        assert after[name] == pytest.approx(before[name], rel=1e-4, abs=1e-6), name
    assert calibration_gap(after)[0] == pytest.approx(calibration_gap(before)[0], rel=1e-4, abs=1e-6)


def test_classes_are_calibrated_when_the_likeliest_comes_true_as_often_as_it_is_said() -> None:
    scores = np.array([[0.75, 0.15, 0.10]] * 4)

    assert score_rows([0, 0, 0, 2], scores, "multiclass")["calibration_error"] == pytest.approx(0.0)
    assert score_rows([0, 2, 1, 2], scores, "multiclass")["calibration_error"] == pytest.approx(0.5)


def test_numbers_are_calibrated_when_each_tenth_of_them_is_right_on_the_whole() -> None:
    labels, scores = some_numbers(0, rows=50_000)
    right = score_rows(labels - 1.0, scores, "regression")
    shrunk = score_rows(labels - 1.0, 10.0 + 0.5 * (scores - 10.0), "regression")  # right in the mean, in no tenth

    assert right["calibration_error"] < 0.01
    assert abs(shrunk["bias"]) < 0.5
    assert shrunk["calibration_error"] == pytest.approx(0.5 * 20.0 * np.sqrt(2 / np.pi) / 25.0, rel=0.05)


def test_a_gap_is_that_of_the_class_it_is_largest_for() -> None:
    scores = np.array([[0.6, 0.1, 0.3]] * 10)

    gap, what = calibration_gap(score_rows([0] * 5 + [1] * 5, scores, "multiclass"))

    assert gap == pytest.approx(-0.4)
    assert what == "scores of class 1"
    assert calibration_gap(score_rows([1, 0, 0, 0], [0.5] * 4)) == (0.25, "scores")


def test_a_class_the_model_never_saw_has_probability_zero() -> None:
    found = score_rows([0, 1, 2], np.array([[0.9, 0.1]] * 3), "multiclass")

    assert found["classes"] == 3
    assert found["mean_score_2"] == 0.0
    assert found["log_loss"] == pytest.approx((-np.log(0.9) - np.log(0.1) + 16.118) / 3, rel=1e-3)


def test_a_class_without_rows_and_one_with_all_rows_have_no_ranking() -> None:
    draw = np.random.default_rng(0).dirichlet(np.ones(3), 4)

    assert "auc" not in score_rows([1, 1, 1, 1], draw, "multiclass").figures
    two = score_rows([0, 1, 1, 0], draw, "multiclass")
    assert two["auc"] == pytest.approx(
        np.mean([metrics.roc_auc_score([1, 0, 0, 1], draw[:, 0]), metrics.roc_auc_score([0, 1, 1, 0], draw[:, 1])])
    )


def test_labels_that_do_not_vary_leave_nothing_to_explain() -> None:
    found = score_rows([3.0, 3.0], [2.0, 4.0], "regression")

    assert "r2" not in found.figures
    assert (found["mse"], found["label_std"]) == (1.0, 0.0)


def an_evaluation_of(task: Task, labels: Floats, scores: Floats) -> Evaluation:
    return evaluate(
        model="toy",
        artifact=a_digest("a"),
        holdout=a_window(),
        holdout_digest=a_digest("b"),
        labels=labels,
        scores=scores,
        days=np.datetime64("2013-05-01") + np.arange(len(labels)) % 5,
        slices={"side": np.where(np.arange(len(labels)) % 2, "odd", "even")},
        task=task,
    )


@pytest.mark.parametrize(("task", "drawn"), [("multiclass", some_classes(1)), ("regression", some_numbers(1))])
def test_days_and_slices_carry_the_losses_of_the_task(task: Task, drawn: tuple[Floats, Floats]) -> None:
    found = an_evaluation_of(task, *drawn)

    assert found.days == 5
    assert list(found.slices) == ["side=even", "side=odd"]
    for scores in (found.overall, *found.slices.values()):
        assert scores.task == task
        assert sum(day.loss_sum for day in scores.by_day) / scores.rows == pytest.approx(scores.loss)
    assert 0.0 <= found.overall["calibration_error_low"] <= found.overall["calibration_error"]
    assert all((day.auc_pull is None) == (task == "regression") for day in found.overall.by_day)
    assert Scores.model_validate_json(found.overall.model_dump_json()) == found.overall


def test_calibration_errors_come_of_bins_and_gaps() -> None:
    bins, gaps = reliability("binary", np.array([1.0, 0.0]), np.array([1.0, 0.25]))

    assert (bins.tolist(), gaps.tolist()) == ([9, 2], [0.0, 0.25])
    assert calibration_error(bins, gaps) == 0.125


@pytest.mark.parametrize(
    ("task", "labels", "scores", "complaint"),
    [
        ("multiclass", [0, 1], [0.5, 0.5], r"\(2,\) labels but \(2,\) scores"),
        ("multiclass", [0], [[0.5, 0.5], [0.5, 0.5]], r"\(1,\) labels but \(2, 2\) scores"),
        ("multiclass", [0, 0.5], [[0.5, 0.5]] * 2, "labels must be classes from 0 to 999, found 0.5"),
        ("multiclass", [0, -1], [[0.5, 0.5]] * 2, "labels must be classes from 0 to 999, found -1"),
        ("multiclass", [0, 1], [[0.5, 0.6]] * 2, "scores must be probabilities that add up to 1, found .0.5 0.6"),
        ("multiclass", [0, 1], [[0.5, 0.5], [np.nan, 1.0]], "found .nan +1"),
        ("regression", [1.0, np.inf], [1.0, 1.0], "labels must be finite numbers, found inf"),
        ("regression", [1.0, 2.0], [1.0, np.nan], "scores must be finite numbers, found nan"),
        ("regression", [1.0, 2.0], [[1.0], [2.0]], r"\(2,\) labels but \(2, 1\) scores"),
    ],
)
def test_what_cannot_be_scored_is_named(task: Task, labels: Any, scores: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        score_rows(labels, scores, task)
