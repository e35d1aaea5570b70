"""Rows come into memory by time, and what is wrong with them is said by name."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError
from evergreen.types import Window
from tests.training_factories import START, a_training_set, columns_of, some_rows


def trains(frame: pd.DataFrame) -> pd.DataFrame:
    day = (frame["event_timestamp"] - START).dt.days
    return frame[(day < 27) & (day != 10)]


def test_the_holdout_is_left_out_and_one_day_in_twenty_validates(tmp_path: Path) -> None:
    training, validation = columns_of(a_training_set(tmp_path, rows=3_000))

    frame = some_rows(3_000)  # a hundred a day for thirty days, the last three of them the holdout
    assert (len(training), len(validation)) == (2_600, 100)
    assert validation.labels.tolist() == frame["label"][1_000:1_100].tolist()
    expected = frame["delay"][:2_700].drop(range(1_000, 1_100))
    assert training.numerics["delay"].tolist() == expected.astype(np.float32).tolist()


def test_numbers_are_float32_with_nan_where_missing_and_categories_are_codes(tmp_path: Path) -> None:
    training, _ = columns_of(a_training_set(tmp_path))

    gap, carrier = training.numerics["gap"], training.categoricals["carrier"]
    expected = trains(some_rows())
    assert gap.dtype == np.float32
    assert np.array_equal(np.isnan(gap), expected["gap"].isna())
    assert [carrier.keys[code] for code in carrier.codes] == expected["carrier"].tolist()


def test_pandas_categories_are_read_as_well_as_text(tmp_path: Path) -> None:
    training, _ = columns_of(a_training_set(tmp_path, change=lambda f: f.astype({"carrier": "category"})))

    carrier = training.categoricals["carrier"]
    assert [carrier.keys[code] for code in carrier.codes] == trains(some_rows())["carrier"].tolist()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda f: f.drop(columns="label"), r"lacks columns \['label'\]"),
        (lambda f: f.drop(columns=["gap", "town"]), r"lacks columns \['gap', 'town'\]"),
        (lambda f: f.assign(label="late"), "'label' is numeric, but its column is .*string"),
        (lambda f: f.assign(gap="text"), "'gap' is numeric, but its column is .*string"),
    ],
)
def test_what_training_cannot_use_is_named(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        columns_of(a_training_set(tmp_path, change=change))


def test_a_set_without_rows_before_its_holdout_is_refused(tmp_path: Path) -> None:
    everything = Window(start=START, end=START + timedelta(days=30))

    with pytest.raises(DataError, match=r"no rows before its holdout .*all 2,000 are in it"):
        columns_of(a_training_set(tmp_path, holdout=everything))


def test_a_file_that_is_not_the_one_described_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2,000 rows, its description says 5"):
        columns_of(a_training_set(tmp_path, rows=2_000).model_copy(update={"rows": 5}))
