import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.attribution import Columns, attribute
from evergreen.figures import Floats
from evergreen.types import Attribution, FeatureImportance, Task

RNG = np.random.default_rng(7)
ROWS = 2_000
COLUMNS = {
    "strong": RNG.normal(size=ROWS),
    "weak": RNG.normal(size=ROWS),
    "idle": RNG.normal(size=ROWS),
    "carrier": np.where(RNG.random(ROWS) < 0.5, "AA", "UA").astype(object),
}
CHANCE = 1 / (1 + np.exp(-2.0 * COLUMNS["strong"] - 0.5 * COLUMNS["weak"]))
LABELS = (RNG.random(ROWS) < CHANCE).astype(float)
DAYS = np.datetime64("2013-05-01") + np.arange(ROWS) % 7


def score(columns: Columns) -> Floats:
    chance: Floats = 1 / (1 + np.exp(-2.0 * columns["strong"] - 0.5 * columns["weak"]))
    return chance


def found(task: Task = "binary", seed: int = 1) -> Attribution:
    return attribute(score, COLUMNS, LABELS, DAYS, task, seed=seed)


def test_what_the_model_leans_on_comes_first_and_what_it_never_reads_is_worth_nothing() -> None:
    attribution = found()
    rises = {one.feature: one.rise for one in attribution.features}

    assert [one.feature for one in attribution.features][:2] == ["strong", "weak"]
    assert rises["strong"] > 5 * rises["weak"] > 0
    assert rises["idle"] == rises["carrier"] == 0.0
    assert (attribution.rows, attribution.days, attribution.seed) == (ROWS, 7, 1)


def test_a_clear_rise_is_clear_of_its_error_and_days_are_its_unit() -> None:
    (strong, *_) = found().features
    assert strong.error is not None
    assert 0 < 10 * strong.error < strong.rise
    one_day = attribute(score, COLUMNS, LABELS, np.full(ROWS, DAYS[0]), "binary", seed=1)
    assert one_day.features[0].error is None


def test_the_same_seed_tells_the_same_and_a_feature_is_shuffled_alike_whatever_the_others_are() -> None:
    again = attribute(score, dict(reversed(COLUMNS.items())), LABELS, DAYS, "binary", seed=1)

    assert again == found()
    assert found(seed=2) != found()


def test_a_regression_is_told_in_squared_errors() -> None:
    attribution = attribute(
        lambda columns: 3.0 * columns["strong"], COLUMNS, 3.0 * COLUMNS["strong"], DAYS, "regression", seed=1
    )
    assert attribution.loss == 0.0
    assert attribution.features[0].rise == pytest.approx(2 * 9.0, rel=0.2)  # twice the variance


def test_a_model_that_breaks_on_shuffled_rows_is_told_as_a_blind_guess_not_as_nan() -> None:
    def breaks(columns: Columns) -> Floats:
        return np.where(np.array_equal(columns["idle"], COLUMNS["idle"]), score(columns), np.nan)

    rises = {one.feature: one.rise for one in attribute(breaks, COLUMNS, LABELS, DAYS, "binary", seed=1).features}
    assert rises["idle"] == pytest.approx(np.log(2) - found().loss)


@given(st.lists(st.floats(-1.0, 1.0, allow_subnormal=False), min_size=1, max_size=20))
def test_shares_sum_to_one_or_to_nothing(rises: list[float]) -> None:
    features = tuple(FeatureImportance(feature=f"f{n}", rise=rise) for n, rise in enumerate(rises))
    shares = Attribution(features=features, rows=1, days=1, loss=0.5, seed=0).shares

    assert sum(shares.values()) == pytest.approx(1.0 if max(rises) > 0 else 0.0)
    assert all((shares[f"f{n}"] > 0) <= (rise > 0) for n, rise in enumerate(rises))
