"""What a window's figures are expected to be, before its outcomes say so."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from evergreen.monitoring.estimate import calibrated, estimate_performance, truth_and_scores
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.spec import MonitorConfig
from evergreen.types import PerformanceEstimate, Task

START = datetime(2013, 4, 1, tzinfo=UTC)
CONFIG = MonitorConfig(min_labels=500)


def answers(rows: int, *, odds: float = -1.0, wrong: float = 0.0, days: int = 28, seed: int = 0) -> pd.DataFrame:
    """Scores whose log odds are too high by `wrong`, and what came true."""
    random = np.random.default_rng(seed)
    true = odds + random.normal(0, 1, rows)
    return pd.DataFrame(
        {
            "event_timestamp": START + pd.to_timedelta(np.sort(random.uniform(0, days, rows)), unit="D"),
            "score": 1 / (1 + np.exp(-true - wrong)),
            "label": (random.random(rows) < 1 / (1 + np.exp(-true))).astype(float),
        }
    )


def classes(rows: int, *, sharp: float = 1.0, wrong: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Three classes; class 0's log odds are too high by `wrong`."""
    random = np.random.default_rng(seed)
    odds = sharp * random.normal(size=(rows, 3))
    true = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    said = np.exp(odds + np.array([wrong, 0, 0]))
    said /= said.sum(axis=1, keepdims=True)
    frame = answers(rows, seed=seed)
    frame["score"] = said.max(axis=1)
    frame["probabilities"] = pd.Series([dict(zip("abc", row.tolist(), strict=True)) for row in said])
    frame["label"] = (random.random(rows)[:, None] > true.cumsum(axis=1)).sum(axis=1).clip(0, 2).astype(float)
    return frame


def realised(frame: pd.DataFrame, task: Task = "binary") -> dict[str, float]:
    found = figures_by_days(task, *truth_and_scores(frame, task), blocks(frame["event_timestamp"], 1))
    return {name: interval.figure for name, interval in found.items()}


def estimated(before: pd.DataFrame, now: pd.DataFrame, task: Task = "binary") -> PerformanceEstimate:
    found = estimate_performance(before, now, task=task, config=CONFIG, seed=0)
    assert found is not None
    return found


@pytest.mark.parametrize("wrong", [0.0, 0.8])
def test_it_comes_near_what_comes_true_though_inputs_moved_and_scores_were_never_calibrated(wrong: float) -> None:
    before, now = answers(20_000, wrong=wrong), answers(20_000, odds=-0.2, wrong=wrong, seed=1)

    found = estimated(before, now)

    assert found.calibration_rows == 20_000
    assert {n: i.figure for n, i in found.figures.items()} == pytest.approx(realised(now), abs=0.015)


def test_outcomes_of_the_window_itself_are_not_looked_at() -> None:
    before, now = answers(5_000), answers(5_000, seed=1)

    assert estimated(before, now) == estimated(before, now.assign(label=1.0))


def test_more_than_two_classes_are_estimated_too() -> None:
    before, now = classes(20_000, wrong=0.7), classes(20_000, sharp=2.0, wrong=0.7, seed=1)

    found = {name: interval.figure for name, interval in estimated(before, now, "multiclass").figures.items()}

    came = realised(now, "multiclass")
    assert found.keys() == came.keys()
    assert [found[n] for n in ("log_loss", "accuracy", "auc")] == pytest.approx(
        [came[n] for n in ("log_loss", "accuracy", "auc")], abs=0.03
    )


def test_with_few_earlier_outcomes_scores_stand_as_they_are() -> None:
    now = answers(3_000, wrong=0.5, seed=1)

    for before in (answers(499), answers(3_000).assign(label=np.nan), answers(3_000).assign(label=0.0)):
        found = estimated(before, now)
        assert found.calibration_rows == 0
        assert found.figures["calibration_gap"].figure == pytest.approx(0.0)


def test_of_a_regression_there_is_none_nor_of_nothing() -> None:
    before, now = answers(3_000), answers(3_000, seed=1)

    assert estimate_performance(before, now, task="regression", config=CONFIG, seed=0) is None
    assert estimate_performance(before, now.head(0), task="binary", config=CONFIG, seed=0) is None


def test_calibrated_scores_keep_their_order_and_stay_chances() -> None:
    before, now = answers(2_000), answers(500, odds=3.0, wrong=1.0, seed=1).sort_values("score")

    chances = calibrated(before["label"].to_numpy(), before["score"].to_numpy(), now["score"].to_numpy())

    assert (np.diff(chances) >= 0).all()
    assert (chances.min() >= 0, chances.max() <= 1) == (True, True)


def test_a_class_the_model_does_not_know_leaves_scores_as_they_are() -> None:
    before, now = classes(3_000), classes(3_000, seed=1)
    before.loc[0, "label"] = 3.0

    assert estimated(before, now, "multiclass").calibration_rows == 0
    assert "log_loss" in realised(before, "multiclass")
