"""Two numbers make probabilities mean what they say."""

import numpy as np
import pytest

from evergreen.evaluation import score_rows
from evergreen.training.calibration import Calibration, calibrate


def drawn(scale: float, shift: float, rows: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    logits = draw.normal(-1.0, 1.5, rows)
    labels = (draw.random(rows) < Calibration(scale=scale, shift=shift)(logits)).astype(np.float64)
    return logits, labels


def test_it_finds_the_scale_and_shift_that_made_the_labels() -> None:
    found = calibrate(*drawn(scale=0.6, shift=0.5))

    assert found.scale == pytest.approx(0.6, abs=0.05)
    assert found.shift == pytest.approx(0.5, abs=0.05)


def test_an_overconfident_model_scores_better_for_it() -> None:
    logits, labels = drawn(scale=0.5, shift=-0.5)

    before, after = score_rows(labels, Calibration()(logits)), score_rows(labels, calibrate(logits, labels)(logits))

    assert after["log_loss"] < before["log_loss"] - 0.01
    assert after["calibration_error"] < 0.02 < before["calibration_error"]


@pytest.mark.parametrize(
    ("logits", "labels"),
    [(np.zeros(0), np.zeros(0)), (np.arange(50.0), np.arange(50) % 2.0), (np.arange(500.0), np.ones(500))],
)
def test_little_or_one_sided_evidence_changes_nothing(logits: np.ndarray, labels: np.ndarray) -> None:
    assert calibrate(logits, labels) == Calibration()


def test_scores_that_rank_backwards_are_not_turned_around() -> None:
    logits, labels = drawn(scale=-1.0, shift=0.0)

    assert calibrate(logits, labels) == Calibration()
