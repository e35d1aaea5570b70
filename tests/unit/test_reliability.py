"""The points of a reliability diagram."""

import numpy as np
import pytest

from evergreen.reliability import reliability


def test_each_bin_says_what_was_said_and_what_came_true() -> None:
    low, high = reliability([0, 0, 1, 1, 1, 0], [0.11, 0.13, 0.18, 0.92, 0.98, 1.0])

    assert (low.rows, high.rows) == (3, 3)
    assert (low.mean_score, low.share) == pytest.approx((0.14, 1 / 3))
    assert (high.mean_score, high.share) == pytest.approx((2.9 / 3, 2 / 3))


def test_no_row_is_lost_and_the_weighted_gap_is_the_calibration_error() -> None:
    from evergreen.evaluation import evaluate
    from tests.factories import a_digest, a_window

    draw = np.random.default_rng(3)
    scores = draw.random(5_000)
    labels = (draw.random(5_000) < scores**2).astype(float)
    days = np.repeat(np.arange("2013-05-01", "2013-05-06", dtype="datetime64[D]"), 1_000)

    bins = reliability(labels, scores)

    assert sum(b.rows for b in bins) == 5_000
    gap = sum(b.rows * abs(b.mean_score - b.share) for b in bins) / 5_000
    figures = evaluate(
        model="m", artifact=a_digest(), holdout=a_window(), holdout_digest=a_digest(), labels=labels, scores=scores,
        days=days, slices={},
    ).overall.figures  # fmt: skip
    assert gap == pytest.approx(figures["calibration_error"])
