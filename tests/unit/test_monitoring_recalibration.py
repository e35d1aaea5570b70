"""The champion moved to where outcomes have been: what that gains, and how sure it is."""

import numpy as np
import pandas as pd
import pytest

from evergreen.monitoring.recalibration import probe
from evergreen.recalibration import fit_recalibration, log_odds, recalibrated
from evergreen.spec import MonitorConfig
from evergreen.types import Recalibration


def answers(days: int, *, seed: int, shift: float = 0.0, rows: int = 400) -> pd.DataFrame:
    """Scores of a model that was right until everything became likelier by `shift` in log odds."""
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-random.normal(-1, 1, size=days * rows)))
    truth = recalibrated(scores, Recalibration(intercept=shift))
    return pd.DataFrame(
        {
            "event_timestamp": pd.Timestamp("2021-01-01", tz="UTC")
            + pd.to_timedelta(np.repeat(np.arange(days), rows), unit="D"),
            "score": scores,
            "label": (random.random(len(scores)) < truth).astype(float),
        }
    )


def test_the_shift_is_found() -> None:
    rows = answers(28, seed=1, shift=0.8)

    fitted = fit_recalibration(rows["label"].to_numpy(), rows["score"].to_numpy())

    assert fitted.intercept == pytest.approx(0.8, abs=0.1)
    assert fitted.slope == pytest.approx(1.0, abs=0.1)


def test_without_rows_nothing_moves() -> None:
    scores = np.array([0.1, 0.5, 0.9])

    assert recalibrated(scores, fit_recalibration(np.empty(0), np.empty(0))) == pytest.approx(scores)


def test_a_model_that_rotted_is_told_from_one_that_did_not() -> None:
    config = MonitorConfig()
    rotten = probe(answers(21, seed=1, shift=0.8), answers(7, seed=2, shift=0.8), config)
    sound = probe(answers(21, seed=3), answers(7, seed=4), config)

    assert rotten is not None
    assert sound is not None
    assert rotten.gain_low > 0.02
    assert sound.gain_low < 0.001


def test_the_true_gain_is_above_its_lower_bound_nearly_always() -> None:
    config = MonitorConfig(probe_confidence=0.9)
    lows = [probe(answers(21, seed=n), answers(7, seed=500 + n), config) for n in range(60)]

    assert sum(low is not None and low.gain_low > 0 for low in lows) <= 12  # nothing is to be gained; 10% may say so


def test_too_few_outcomes_make_no_probe() -> None:
    few = answers(7, seed=1, rows=10)

    assert probe(few, answers(7, seed=2), MonitorConfig()) is None
    assert probe(answers(21, seed=2), few, MonitorConfig()) is None


def test_log_odds_have_an_end() -> None:
    assert np.isfinite(log_odds(np.array([0.0, 1.0]))).all()
