"""Logistic regression and boosted trees over frames as training sets hold them: every task, gaps, unseen categories."""

from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.adapters import boosted_trees, logistic
from tests import training_factories
from tests.training_factories import some_rows

FEATURES: dict[str, Literal["numeric", "categorical"]] = {**training_factories.FEATURES}  # type: ignore[dict-item]
Task = Literal["binary", "multiclass", "regression"]
TASKS: tuple[Task, ...] = ("binary", "multiclass", "regression")


def labels_for(task: str, rows: pd.DataFrame) -> Any:
    """Something `delay` and `carrier` tell of."""
    if task == "multiclass":
        return rows["label"].to_numpy() + (rows["delay"].to_numpy() > 40)
    return rows["label"].to_numpy() if task == "binary" else rows["delay"].to_numpy() + (rows["carrier"] == "C3") * 30.0


def fits(task: Task, rows: pd.DataFrame) -> dict[str, Any]:
    labels, days = np.asarray(labels_for(task, rows)), days_of(rows)
    return {
        logistic.NAME: logistic.fit(task, rows, labels, FEATURES),
        boosted_trees.NAME: boosted_trees.fit(task, rows, labels, days, FEATURES, rounds=40),
    }


def days_of(rows: pd.DataFrame) -> Any:
    return rows["event_timestamp"].dt.tz_localize(None).to_numpy()


@pytest.mark.parametrize("task", TASKS)
def test_each_learns_what_the_columns_tell(task: Task) -> None:
    training, unseen = some_rows(3_000, seed=1), some_rows(1_000, seed=2)
    truth = np.asarray(labels_for(task, unseen))

    for name, fitted in fits(task, training).items():
        scores = fitted.scores(unseen)
        if task == "regression":
            assert np.mean((scores - truth) ** 2) < 0.5 * truth.var(), name
        elif task == "binary":
            assert scores.shape == (1_000,)
            assert scores[truth == 1].mean() > scores[truth == 0].mean() + 0.05, name
        else:
            assert scores.shape == (1_000, 3)
            assert np.allclose(scores.sum(axis=1), 1.0)
            assert (scores.argmax(axis=1) == truth).mean() > 0.6, name


def test_the_same_rows_give_the_same_model_to_the_last_bit() -> None:
    once, again = (fits("binary", some_rows(1_000)) for _ in range(2))

    assert {name: fitted.content for name, fitted in once.items()} == {n: f.content for n, f in again.items()}


@settings(max_examples=15, deadline=None)
@given(row=st.fixed_dictionaries({
    "delay": st.none() | st.floats(width=32, allow_nan=True, allow_infinity=False),
    "count": st.none() | st.integers(-3, 10_000),
    "gap": st.none(),
    "carrier": st.none() | st.sampled_from(["C1", "never seen"]),
    "town": st.none() | st.text(max_size=5),
}))  # fmt: skip
def test_whatever_a_row_holds_has_a_probability(row: dict[str, Any], fitted_models: dict[str, Any]) -> None:
    for fitted in fitted_models.values():
        (score,) = fitted.scores(pd.DataFrame({name: pd.Series([cell]) for name, cell in row.items()}))
        assert 0.0 <= score <= 1.0


@pytest.fixture(scope="module")
def fitted_models() -> dict[str, Any]:
    return fits("binary", some_rows(800))


def test_columns_that_say_the_same_do_not_pull_apart() -> None:
    rows = some_rows(1_000).assign(twin=lambda frame: frame["gap"])

    fitted = logistic.fit("binary", rows, rows["label"].to_numpy(), FEATURES | {"twin": "numeric"})

    weights = dict(zip([column.name for column in fitted.encoder.fitted.numerics], fitted.model.coef_[0], strict=False))
    assert weights["gap"] == pytest.approx(weights["twin"], abs=1e-3)


def test_the_latest_days_choose_how_many_trees_and_which_settings() -> None:
    rows = some_rows(2_000)
    stumps = {**boosted_trees.PLAIN, "num_leaves": 2, "learning_rate": 1e-4}

    fitted = boosted_trees.fit(
        "binary",
        rows,
        rows["label"].to_numpy(),
        days_of(rows),
        FEATURES,
        tries=(stumps, boosted_trees.PLAIN),
        rounds=60,
    )

    assert fitted.settings == {**boosted_trees.PLAIN, "min_data_in_leaf": 20}
    assert fitted.tried == 2
    assert 0 < fitted.booster.num_trees() <= 60


def test_a_search_ends_when_its_time_is_spent_but_tries_one() -> None:
    rows = some_rows(500)

    fitted = boosted_trees.fit(
        "binary", rows, rows["label"].to_numpy(), days_of(rows), FEATURES,
        tries=[boosted_trees.PLAIN] * 3, rounds=5, cpu_seconds=0.0,
    )  # fmt: skip

    assert fitted.tried == 1


def test_rows_of_one_day_are_enough() -> None:
    rows = some_rows(300)
    one_day = np.full(len(rows), np.datetime64("2013-01-01"))

    fitted = boosted_trees.fit("binary", rows, rows["label"].to_numpy(), one_day, FEATURES, rounds=5)

    assert fitted.booster.num_trees() == 5
