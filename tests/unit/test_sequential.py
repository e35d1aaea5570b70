import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.sequential import EFFECT_VARIANCE, Interval, confidence_sequence

DAYS = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=40)


@pytest.mark.parametrize("days", [[], [0.4], [0.4, 0.5]])
def test_two_days_bound_nothing(days: list[float]) -> None:
    found = confidence_sequence(days, 0.95)

    assert (found.low, found.high, found.days) == (-math.inf, math.inf, len(days))


@given(days=DAYS, shift=st.floats(-2.0, 2.0), scale=st.floats(0.1, 10.0))
def test_the_interval_moves_and_stretches_with_the_days(days: list[float], shift: float, scale: float) -> None:
    found, moved = confidence_sequence(days, 0.9), confidence_sequence([scale * one + shift for one in days], 0.9)

    assert moved.low == pytest.approx(scale * found.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(scale * found.high + shift, abs=1e-6)
    assert found.low <= found.mean <= found.high


def test_its_bounds_are_where_the_bayes_factor_is_the_threshold() -> None:
    """Against the marginal likelihoods, integrated: the closed form is not taken on trust."""
    days = np.array([0.1, 0.3, 0.2, 0.25, 0.15, 0.2])
    low = confidence_sequence(days.tolist(), 0.95).low

    assert bayes_factor(days - low) == pytest.approx(20.0, rel=1e-3)


def bayes_factor(days: "np.typing.NDArray[np.float64]") -> float:
    """Of N(effect * s, s) with effect ~ N(0, EFFECT_VARIANCE) against N(0, s), each over ds / s, by sums over grids."""
    spreads = np.exp(np.linspace(-8, 6, 1_500))[:, None]
    effects = np.linspace(-30, 30, 3_001)[None, :]

    def likelihood(means: "np.typing.NDArray[np.float64]") -> "np.typing.NDArray[np.float64]":
        squares = np.square(days).sum() - 2 * means * days.sum() + len(days) * np.square(means)
        densities: np.typing.NDArray[np.float64] = spreads ** -len(days) * np.exp(-squares / (2 * spreads**2))
        return densities

    prior = np.exp(-np.square(effects) / (2 * EFFECT_VARIANCE))
    prior /= prior.sum()
    return float((likelihood(effects * spreads) * prior).sum() / likelihood(np.zeros((1, 1)) * spreads).sum())


def test_looking_every_day_for_sixty_days_errs_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for days in rng.normal(0.3, 1.0, (400, 60)):
        looks = [confidence_sequence(days[:count].tolist(), 0.9) for count in range(3, 61)]
        wrong += any(not look.low <= 0.3 <= look.high for look in looks)

    assert wrong / 400 <= 0.1


def test_three_days_can_prove_what_is_plain() -> None:
    assert confidence_sequence([0.50, 0.52, 0.51], 0.95).low > 0.0


def test_days_that_are_all_the_same_are_certain() -> None:
    assert confidence_sequence([0.25] * 5, 0.95) == Interval(0.25, 0.25, 0.25, 5)
