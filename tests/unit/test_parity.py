from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evergreen.gate.parity import answers_hold
from evergreen.parity import compare_values, same
from evergreen.spec import GateConfig
from evergreen.types import ColumnParity, Parity
from tests.factories import a_window

IDS = ["a", "b", "c", "d"]


def numbers(*values: float | None) -> Any:
    return np.array(values, dtype=np.float64)


def texts(*values: str | None) -> Any:
    return np.array([*values, None], dtype=object)[:-1]


def some_parity(**changes: Any) -> Parity:
    return Parity(version=3, window=a_window(), answers=900, rows=500, seed=1).model_copy(update=changes)


def test_values_that_are_equal_within_the_tolerance_are_no_difference() -> None:
    logged = {"wind": numbers(1.0, None, 1_000.0, 0.0), "carrier": texts("AA", None, "UA", "UA")}
    offline = {"wind": numbers(1.00005, None, 1_000.05, -0.00005), "carrier": texts("AA", None, "UA", "UA")}

    found = compare_values(logged, offline, None, IDS, 1e-4)

    assert not found.values_differ.any()
    assert found.columns == ()


def test_a_difference_is_told_by_column_the_worst_first_with_an_example() -> None:
    logged = {"wind": numbers(1.0, 2.0, 3.0, 4.0), "carrier": texts("AA", "AA", "UA", None)}
    offline = {"wind": numbers(1.0, 2.5, None, 4.0), "carrier": texts("AA", "AA", "UA", "DL")}

    found = compare_values(logged, offline, None, IDS, 1e-4)

    assert found.values_differ.tolist() == [False, True, True, True]
    assert found.columns == (
        ColumnParity(column="wind", rows=2, example_id="b", logged=2.0, offline=2.5),
        ColumnParity(column="carrier", rows=1, example_id="d", logged=None, offline="DL"),
    )


def test_what_the_newest_refresh_held_is_behind_and_no_difference_unless_another_value_is_wrong() -> None:
    logged = {"wind": numbers(1.0, 1.0, 3.0, 4.0), "rain": numbers(0.0, 9.0, 0.0, 0.0)}
    offline = {"wind": numbers(2.0, 2.0, 3.0, 4.0), "rain": numbers(0.0, 0.0, 0.0, 0.0)}
    refreshed = {"wind": numbers(1.0, 1.0, 2.0, 4.0), "rain": numbers(0.0, 0.0, 0.0, 0.0)}

    found = compare_values(logged, offline, refreshed, IDS, 1e-4)

    assert found.behind.tolist() == [True, False, False, False]
    assert found.values_differ.tolist() == [False, True, False, False]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_a_column_is_the_same_as_itself(values: list[float]) -> None:
    assert same(numbers(*values), numbers(*values), 0.0).all()


def test_a_check_shows_what_was_computed_again_and_holds_up_to_its_share() -> None:
    (held,) = answers_hold(some_parity(mismatches=10, behind=4), GateConfig())
    (refused,) = answers_hold(
        some_parity(
            mismatches=11,
            wrong_scores=2,
            example_id="b",
            columns=(ColumnParity(column="wind", rows=11, example_id="b", logged=2.0, offline=None),),
        ),
        GateConfig(),
    )

    assert held.passed
    assert "2.0% differ (4 more were a refresh behind), at most 2.0% allowed" in held.reason
    assert not refused.passed
    assert "wind in 11, as in b: logged 2, offline nothing" in refused.reason
    assert "in 2 the version itself says another score" in refused.reason


def test_where_all_that_was_asked_brought_its_own_features_it_says_so_and_decides_nothing() -> None:
    parity = some_parity(rows=0, unknown=500, note="none of the 500 drawn was known")

    (check,) = answers_hold(parity, GateConfig(max_parity_mismatches=0.0))

    assert check.passed
    assert check.rule.endswith("decides nothing")
    assert check.reason == "no answer was computed again: none of the 500 drawn was known"


def test_where_no_answer_could_be_computed_again_nothing_shows_that_it_is_served_as_it_learns() -> None:
    (check,) = answers_hold(some_parity(rows=0, note="the table is gone"), GateConfig(max_parity_mismatches=0.5))

    assert not check.passed
    assert check.reason == (
        "none of the 900 logged answers of version 3 could be computed again: the table is gone. Mend that, or, where the "
        "champion's features are gone for good, set [gate].parity_rows = 0 for this retrain"
    )
