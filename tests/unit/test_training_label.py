"""What a label must be for its task, and what is learnt of it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.data.label import Label, fit
from evergreen.types import Task
from tests.training_factories import a_spec


def labels(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def test_a_binary_label_is_one_output() -> None:
    assert fit(a_spec(), labels(0, 1, 1), labels(0)) == Label()
    assert Label().outputs == 1
    assert Label().targets(labels(0, 1)).tolist() == [0.0, 1.0]


def test_classes_bear_their_numbers_where_the_file_does_not_name_them() -> None:
    found = fit(a_spec("multiclass"), labels(0, 2, 1, 2), labels(1))

    assert found == Label(task="multiclass", classes=("0", "1", "2"))
    assert found.outputs == 3
    assert found.targets(labels(2, 0)).tolist() == [2.0, 0.0]


def test_classes_bear_the_names_of_the_file() -> None:
    assert fit(a_spec("multiclass", ("on time", "late")), labels(0, 1), labels()).classes == ("on time", "late")


def test_a_number_is_learnt_as_its_distance_from_the_mean_in_standard_deviations() -> None:
    values = np.random.default_rng(0).normal(1e4, 250.0, 1_000).astype(np.float32)

    found = fit(a_spec("regression"), values, labels(0))
    targets = found.targets(values)

    assert found.outputs == 1
    assert found.mean == pytest.approx(1e4, rel=0.01)
    assert targets.mean() == pytest.approx(0.0, abs=1e-4)
    assert targets.std() == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(
    ("task", "training", "validation", "complaint"),
    [
        ("binary", (0, 2, 1), (), r"1 of 3 labels of 'toy' are not 0 or 1 \(the first is 2\)"),
        ("binary", (0, 1), (0.5,), r"not 0 or 1 \(the first is 0.5\)"),
        ("binary", (0, 1, np.nan), (), r"not 0 or 1 \(the first is nan\)"),
        ("binary", (1, 1), (0,), "all 2 training rows of 'toy' have label 1; a binary model needs both"),
        ("multiclass", (0, 1, 1.5), (), r"not classes from 0 to 999 \(the first is 1.5\)"),
        ("multiclass", (0, -1), (), r"not classes from 0 to 999 \(the first is -1\)"),
        ("multiclass", (0, 3, 1), (), "of the classes 0 to 3 of 'toy', 2 has no training row"),
        ("multiclass", (0, 1), (4,), "of the classes 0 to 4 of 'toy', 2, 3, 4 has no training row"),
        ("multiclass", (2, 2), (), "have label 2; a multiclass model needs two classes"),
        ("regression", (1.0, np.nan), (), r"not finite numbers \(the first is nan\)"),
        ("regression", (1.5, 1.5), (1.0,), "have label 1.5; a regression model needs numbers that differ"),
    ],
)
def test_what_cannot_be_learnt_is_named(
    task: Task, training: tuple[float, ...], validation: tuple[float, ...], complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        fit(a_spec(task), labels(*training), labels(*validation))


def test_classes_the_file_does_not_name_and_those_no_row_has_are_told() -> None:
    spec = a_spec("multiclass", ("on time", "late", "very late"))

    with pytest.raises(
        DataError, match=r"labels up to 3, but \[data\].classes names 3 classes: on time, late, very late"
    ):
        fit(spec, labels(0, 1, 2, 3), labels())
    with pytest.raises(DataError, match=r"2 \(very late\) has no training row"):
        fit(spec, labels(0, 1), labels())
