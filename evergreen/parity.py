"""Logged answers beside the same ones computed again: which values and which scores differ.

Pure numpy over columns of equal length, a row an answer. Called by `tasks/parity.py`; judged by `gate/parity.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evergreen.types import Cell, ColumnParity

Columns = Mapping[str, NDArray[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Compared:
    """What came of some answers; masks are (rows,)."""

    values_differ: Mask
    behind: Mask
    """Equal to what the newest refresh of the online store held, though a newer value was known."""
    columns: tuple[ColumnParity, ...]
    """With differences, the worst first."""


def compare_values(
    logged: Columns, offline: Columns, refreshed: Columns | None, example_ids: Sequence[str], tolerance: float
) -> Compared:
    """Each logged value beside the offline one of its moment, or of the last refresh before it where `refreshed` is given.

    Numbers are float64 with NaN where missing, categories objects with None; `example_ids` (rows,).
    """
    differ, behind = (np.zeros(len(example_ids), dtype=np.bool_) for _ in range(2))
    columns = []
    for name, values in logged.items():
        wrong = ~same(values, offline[name], tolerance)
        if refreshed is not None:
            late = wrong & same(values, refreshed[name], tolerance)
            behind |= late
            wrong &= ~late
        differ |= wrong
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            columns.append(
                ColumnParity(
                    column=name,
                    rows=int(wrong.sum()),
                    example_id=example_ids[first],
                    logged=_cell(values[first]),
                    offline=_cell(offline[name][first]),
                )
            )
    worst = tuple(sorted(columns, key=lambda column: (-column.rows, column.column)))
    return Compared(values_differ=differ, behind=behind & ~differ, columns=worst)


def same(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> Mask:
    """(rows,) whether two columns say the same: numbers within `tolerance`, relative above 1, and missing like missing."""
    if one.dtype == object or other.dtype == object:
        return np.array([mine == theirs for mine, theirs in zip(one, other, strict=True)], dtype=np.bool_)
    with np.errstate(invalid="ignore"):
        near = np.abs(one - other) <= tolerance * np.maximum(1.0, np.abs(other))
    alike: Mask = near | (np.isnan(one) & np.isnan(other))
    return alike


def _cell(value: Any) -> Cell:
    if value is None or value != value:
        return None
    return float(value) if isinstance(value, float | np.floating) else str(value)
