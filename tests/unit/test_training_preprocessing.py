"""Cells become numbers the same way in training and in serving."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.data.preprocessing import Coded, Encoder, Preprocessing, category_key, code, fit

NAN = float("nan")


def numbers(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def coded(*values: str | None) -> Coded:
    keys = tuple(dict.fromkeys(value for value in values if value is not None))
    return Coded(np.array([keys.index(v) if v is not None else -1 for v in values], dtype=np.int32), keys)


def fitted_numeric(values: NDArray[np.float32]) -> Encoder:
    return Encoder(fit({"x": values}, {}, {"x": "numeric"}))


def test_a_skewed_numeric_becomes_standard_normal() -> None:
    values = np.random.default_rng(0).gamma(1.0, 50.0, 20_000).astype(np.float32)

    encoded = fitted_numeric(values).encode_cells({"x": values}).numeric[:, 0]

    assert abs(encoded.mean()) < 0.02
    assert abs(encoded.std() - 1.0) < 0.03


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=400).filter(lambda v: len(set(v)) > 1))
def test_the_transform_keeps_the_order_of_values_and_stays_in_range(values: list[float]) -> None:
    column = numbers(*values)

    encoded = fitted_numeric(column).encode_cells({"x": np.sort(column)}).numeric[:, 0]

    assert (np.diff(encoded) >= 0).all()
    assert (np.abs(encoded) < 3.2).all()


def test_a_frequent_value_stands_at_the_middle_of_its_ranks() -> None:
    encoder = fitted_numeric(numbers(*[0.0] * 600, *range(1, 401)))

    zero = encoder.encode_cells({"x": [0.0]}).numeric[0, 0]

    assert zero == pytest.approx(-0.524, abs=0.02)  # the normal's 30% quantile: half of 60%


def test_missing_is_the_median_and_says_so() -> None:
    encoder = fitted_numeric(numbers(NAN, 1.0, 2.0, 3.0))

    encoded = encoder.encode_cells({"x": [None, NAN, 2.0, float("inf")]})

    assert encoded.numeric[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert encoded.missing[:, 0].tolist() == [1.0, 1.0, 0.0, 1.0]


def test_missing_in_a_column_that_was_always_there_is_the_median_too() -> None:
    encoded = fitted_numeric(numbers(1.0, 2.0, 3.0)).encode_cells({"x": [None]})

    assert encoded.numeric.tolist() == [[0.0]]
    assert encoded.missing.shape == (1, 0)


def test_rare_unseen_and_missing_categories_share_place_zero() -> None:
    column = coded(*["a"] * 20, *["b"] * 20, "rare", None)
    encoder = Encoder(fit({}, {"c": column}, {"c": "categorical"}))

    encoded = encoder.encode_cells({"c": ["a", "b", "rare", "unseen", None, NAN]})

    assert encoded.categories[:, 0].tolist() == [1, 2, 0, 0, 0, 0]
    assert encoder.cardinalities == (3,)


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        ("1", "1"),
        (1, "1"),
        (1.0, "1"),
        (np.int64(1), "1"),
        (np.float32(1), "1"),
        (1.5, "1.5"),
        (True, "True"),
        (None, None),
        (NAN, None),
        (pd.NaT, None),
        (pd.NA, None),
    ],
)
def test_a_category_has_one_name_whatever_type_it_arrives_in(cell: Any, key: str | None) -> None:
    assert category_key(cell) == key


def test_a_constant_or_missing_column_is_dropped_by_name_with_its_reason() -> None:
    fitted = fit(
        {"flat": numbers(*[3.0] * 30), "void": numbers(*[NAN] * 30), "x": numbers(*range(30))},
        {"one": coded(*["a"] * 30), "none": coded(*[None] * 30)},
        {"flat": "numeric", "void": "numeric", "x": "numeric", "one": "categorical", "none": "categorical"},
    )

    assert fitted.dropped == {
        "flat": "always 3 in the training rows",
        "void": "missing in every training row",
        "one": "always 'a' in the training rows",
        "none": "missing in every training row",
    }
    assert [column.name for column in fitted.numerics] == ["x"]


def test_a_constant_with_gaps_is_kept_for_its_gaps() -> None:
    assert fitted_numeric(numbers(3.0, NAN, 3.0)).indicators == 1


def test_when_no_column_is_left_the_error_says_why() -> None:
    with pytest.raises(DataError, match=r"every feature is constant or missing.*'x': 'always 1"):
        fitted_numeric(numbers(1.0, 1.0))


def two_columns() -> Preprocessing:
    return fit({"x": numbers(*range(30))}, {"c": coded(*["a", "b"] * 15)}, {"x": "numeric", "c": "categorical"})


def test_columns_in_memory_and_cells_of_a_request_encode_to_the_same_numbers() -> None:
    encoder = Encoder(two_columns())

    from_memory = encoder.encode_columns({"x": numbers(5.0, NAN)}, {"c": coded("b", None)})
    from_cells = encoder.encode_cells({"x": [5.0, None], "c": ["b", None], "other": [1, 2]})

    assert np.array_equal(from_memory.numeric, from_cells.numeric)
    assert np.array_equal(from_memory.categories, from_cells.categories)


def test_it_survives_json_to_the_last_bit() -> None:
    column = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    fitted = fit({"x": column}, {}, {"x": "numeric"})

    again = Preprocessing.model_validate_json(fitted.model_dump_json())

    assert again == fitted
    assert np.array_equal(
        Encoder(again).encode_cells({"x": column}).numeric, fitted_numeric(column).encode_cells({"x": column}).numeric
    )


def test_pandas_columns_with_their_own_missing_marks_are_read() -> None:
    encoder = fitted_numeric(numbers(NAN, 1.0, 2.0, 3.0))

    encoded = encoder.encode_cells({"x": pd.Series([1, None, 3], dtype="Int64")})

    assert encoded.missing[:, 0].tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("cells", "kind", "keys"),
    [(["b", None, "a"], "string", ("b", None, "a")), ([2, None, 1], "Int64", ("2", None, "1"))],
)
def test_pandas_categories_with_their_own_missing_marks_are_read(cells: list[Any], kind: str, keys: Any) -> None:
    assert code(pd.Series(cells, dtype=kind)).keys == keys


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match=r"columns \['c'\] are missing; the model reads \['x', 'c'\]"):
        Encoder(two_columns()).encode_cells({"x": [1.0]})


def test_columns_of_different_length_are_named() -> None:
    with pytest.raises(DataError, match=r"columns differ in length: \{'x': 1, 'c': 2\}"):
        Encoder(two_columns()).encode_cells({"x": [1.0], "c": ["a", "b"]})


def test_text_in_a_numeric_column_is_named() -> None:
    with pytest.raises(DataError, match=r"column 'x' is numeric, but a value is not: .*'much'"):
        Encoder(two_columns()).encode_cells({"x": ["much"], "c": ["a"]})
