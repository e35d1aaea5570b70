from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evergreen.training.data.curves import FEW_ROWS, Curves

CELLS = st.floats(width=32)


@given(st.data())
def test_a_few_rows_and_many_are_given_the_same_bits(data: st.DataObject) -> None:
    drawn, columns, rows = [], [], FEW_ROWS + 5
    for _ in range(data.draw(st.integers(1, 4))):
        knots = sorted(data.draw(st.sets(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20)))
        scores = sorted(data.draw(st.lists(st.floats(-3.1, 3.1), min_size=len(knots), max_size=len(knots))))
        drawn.append((knots, scores))
        columns.append(data.draw(arrays.arrays(np.float32, rows, elements=CELLS | st.sampled_from(knots))))
    curves = Curves(drawn)

    together = curves.scores(columns, rows)
    apart = np.concatenate([curves.scores([column[i : i + 1] for column in columns], 1) for i in range(rows)])

    np.testing.assert_array_equal(together, apart)


def test_what_is_not_finite_is_missing_however_many_rows_there_are() -> None:
    curves = Curves([([0.0, 1.0], [-1.0, 1.0])])
    for rows in (3, 3 * FEW_ROWS):
        column: Any = np.resize(np.array([np.nan, np.inf, -np.inf], dtype=np.float32), rows)
        assert np.isnan(curves.scores([column], rows)).all()
