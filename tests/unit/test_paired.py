"""Differences by day do what the statistics say, whatever the days."""

from datetime import timedelta
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.gate import KINDS, share, simulated
from evergreen.errors import DataError
from evergreen.evaluation import evaluate
from evergreen.gate.champion import better_than_champion, not_worse_than_champion
from evergreen.paired import holm, paired_auc, paired_difference
from evergreen.spec import GateConfig
from evergreen.types import DayLoss, Scores
from tests.factories import DAY, MAY, a_digest, a_window

Day = tuple[int, float, float]
"""Rows, and each model's mean loss."""
days = st.lists(st.tuples(st.integers(1, 2_000), st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=2, max_size=30)


def scores(found: list[Day], model: int, shift: float = 0.0) -> Scores:
    by_day = tuple(
        DayLoss(day=(MAY + n * DAY).date(), rows=day[0], loss_sum=day[0] * (day[1 + model] + shift))
        for n, day in enumerate(found)
    )
    return Scores(rows=sum(day.rows for day in by_day), figures={}, by_day=by_day)


@given(days)
def test_a_model_is_never_worse_than_itself(found: list[Day]) -> None:
    same = paired_difference(scores(found, 0), scores(found, 0))

    assert (same.mean, same.error, same.upper(0.999)) == (0.0, 0.0, 0.0)
    assert same.p_not_worse() == 1.0


@given(days, st.randoms())
def test_the_order_of_the_days_is_irrelevant(found: list[Day], random: Random) -> None:
    candidate, champion = scores(found, 0), scores(found, 1)
    shuffled = list(candidate.by_day)
    random.shuffle(shuffled)

    other = paired_difference(candidate.model_copy(update={"by_day": tuple(shuffled)}), champion)

    assert other == paired_difference(candidate, champion)


@given(days, st.floats(0.0, 2.0))
def test_what_both_lose_alike_changes_nothing(found: list[Day], shift: float) -> None:
    plain = paired_difference(scores(found, 0), scores(found, 1))
    shifted = paired_difference(scores(found, 0, shift), scores(found, 1, shift))

    assert shifted.mean == pytest.approx(plain.mean, abs=1e-9)
    assert shifted.error == pytest.approx(plain.error, abs=1e-9)


@given(days, st.floats(0.0, 2.0))
def test_a_loss_on_every_day_moves_the_bound_by_as_much(found: list[Day], shift: float) -> None:
    plain = paired_difference(scores(found, 0), scores(found, 1))
    worse = paired_difference(scores(found, 0, shift), scores(found, 1))

    assert worse.upper(0.9) == pytest.approx(plain.upper(0.9) + shift, abs=1e-6)


@given(days, st.floats(0.001, 0.5))
def test_a_loss_above_the_margin_on_every_day_is_always_seen(found: list[Day], margin: float) -> None:
    worse = paired_difference(scores(found, 0, margin * 1.01), scores(found, 0))

    assert worse.upper(0.51) > margin


@given(days)
def test_the_surer_one_wants_to_be_the_higher_the_bound(found: list[Day]) -> None:
    difference = paired_difference(scores(found, 0), scores(found, 1))

    bounds = [difference.upper(confidence) for confidence in (0.6, 0.8, 0.9, 0.95, 0.99)]

    assert all(low <= high for low, high in pairwise(bounds))
    assert difference.mean <= bounds[0]


def test_days_count_by_their_rows() -> None:
    found = paired_difference(
        scores([(100, 0.5, 0.4), (300, 0.4, 0.4)], 0), scores([(100, 0.5, 0.4), (300, 0.4, 0.4)], 1)
    )

    assert found.mean == pytest.approx(0.025)


def test_one_day_bounds_nothing() -> None:
    found = paired_difference(scores([(100, 0.9, 0.4)], 0), scores([(100, 0.9, 0.4)], 1))

    assert found.upper(0.9) == float("inf")
    assert found.p_not_worse() == 1.0


@pytest.mark.parametrize(
    "change",
    [{"by_day": ()}, {"rows": 1}, {"day": MAY.date() + timedelta(days=9)}],
    ids=["no days", "other rows", "another day"],
)
def test_other_days_are_never_paired(change: dict[str, object]) -> None:
    champion = scores([(10, 0.5, 0.5), (20, 0.5, 0.5)], 1)
    first, second = champion.by_day
    days_found = () if "by_day" in change else (first.model_copy(update=change), second)

    with pytest.raises(DataError, match="pairing by day"):
        paired_difference(champion.model_copy(update={"by_day": days_found}), champion)


def test_with_a_day_for_every_row_the_error_of_the_auc_is_delongs() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random(600) < 0.3).astype(int)
    signal = labels + rng.normal(0, 1, 600)
    models = [1 / (1 + np.exp(-(signal + rng.normal(0, noise, 600)))) for noise in (0.5, 1.0)]
    placed = []
    for one in models:
        right = one[labels == 1][:, None] > one[labels == 0][None, :]
        placed.append((right.mean(axis=1), right.mean(axis=0)))
    delong = sum(np.var(first - second, ddof=1) / len(first) for first, second in zip(*placed, strict=True))
    first, second = (
        evaluate(
            model="toy",
            artifact=a_digest(),
            holdout=a_window(days=600),
            holdout_digest=a_digest(),
            labels=labels,
            scores=one,
            days=np.datetime64("2013-05-01") + np.arange(600),
            slices={},
        ).overall
        for one in models
    )

    found = paired_auc(first, second)

    assert found is not None
    assert found.mean == pytest.approx(placed[0][0].mean() - placed[1][0].mean())
    assert found.error == pytest.approx(np.sqrt(delong), rel=0.01)


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([]) == ()


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
def test_holm_never_makes_a_proof_clearer_and_keeps_the_order(p_values: list[float]) -> None:
    corrected = holm(p_values)

    assert all(after >= before for before, after in zip(p_values, corrected, strict=True))
    assert sorted(range(len(p_values)), key=lambda n: (corrected[n], p_values[n])) == sorted(
        range(len(p_values)), key=lambda n: p_values[n]
    )


@pytest.mark.parametrize("length", [5, 7, 14])
def test_a_gate_errs_no_more_often_than_its_level_says(length: int) -> None:
    rules = GateConfig(confidence=0.9, margin=0.01)
    allowed = 0.1 + 3 * np.sqrt(0.1 * 0.9 / 500)  # three standard errors of the simulation

    equal = list(simulated(KINDS["seed"], length, 500, 0.0))
    worse = list(simulated(KINDS["seed"], length, 500, rules.margin, seed=1))

    assert share(equal, lambda a, b: better_than_champion(a, b, rules)) <= allowed
    assert share(worse, lambda a, b: not_worse_than_champion(a, b, rules)) <= allowed


def test_a_fresher_model_passes_on_a_week() -> None:
    fresher = list(simulated(KINDS["week"], 7, 300, -0.003))

    assert share(fresher, lambda a, b: not_worse_than_champion(a, b, GateConfig())) > 0.9
