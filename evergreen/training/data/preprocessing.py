"""Cells → the numbers a network takes. The one recipe, used by training and by serving.

Fitted on training rows only; its state is JSON and travels inside the model artifact. A numeric is mapped through its
own empirical distribution onto a standard normal (scikit-learn's quantile transform, ties at their middle rank),
missing becomes 0 (the median) plus an indicator. A category is looked up in a vocabulary; rare, unseen and missing
ones share place 0. Free of torch. To treat a new kind of column, add a state class here, and its encoding to
`Encoder`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.data.curves import FEW_ROWS, Curves
from evergreen.types import Fact

if TYPE_CHECKING:
    import pandas as pd

KNOTS = 256
"""Points kept of a numeric's distribution, at most."""
MIN_CATEGORY_ROWS = 10
"""Categories with fewer training rows share the place of the unseen ones."""
MIN_MISSING_SHARE = 0.02
"""A numeric that is missing less often gets no indicator: too few rows to learn from what its absence means, and many
such indicators at once, on a day without weather, would add up to a certainty nothing supports."""
_EXTREME = 1e-3
"""Quantiles are clipped this far from 0 and 1, so the normalised range is about ±3.1."""

Column: TypeAlias = "Sequence[Any] | NDArray[Any] | pd.Series[Any]"


class NumericColumn(Fact):
    """How one numeric becomes normal: piecewise linear from `knots` to `scores`, flat beyond."""

    name: str
    knots: tuple[float, ...]
    """Distinct values, rising."""
    scores: tuple[float, ...]
    """Standard-normal score of each knot."""
    indicator: bool
    """Were some training rows missing? Then missingness is an input of its own."""


class CategoryColumn(Fact):
    """The categories one column had often enough; a category's place is its position + 1."""

    name: str
    vocabulary: tuple[str, ...]


class Preprocessing(Fact):
    """Everything learnt of the columns."""

    features: dict[str, Literal["numeric", "categorical"]]
    """All inputs asked for, in column order, the dropped ones too."""
    numerics: tuple[NumericColumn, ...]
    categoricals: tuple[CategoryColumn, ...]
    dropped: dict[str, str]
    """Inputs that carry nothing, and why."""


@dataclass(frozen=True)
class Coded:
    """A categorical column in memory: `keys[codes[i]]` is row i's category; code -1 is missing."""

    codes: NDArray[np.int32]
    keys: tuple[str | None, ...]

    def __getitem__(self, rows: NDArray[np.bool_]) -> "Coded":
        return Coded(self.codes[rows], self.keys)


@dataclass(frozen=True)
class Encoded:
    """Rows as a network takes them."""

    numeric: NDArray[np.float32]
    """(rows, numerics), standard normal; 0 where missing."""
    missing: NDArray[np.float32]
    """(rows, indicators), 1 where missing."""
    categories: NDArray[np.int64]
    """(rows, categoricals), place in the vocabulary."""

    def __len__(self) -> int:
        return len(self.numeric)


def category_key(value: object) -> str | None:
    """The text a cell is looked up by; None when it is missing. 1, 1.0 and "1" are one category."""
    if isinstance(value, str):
        return value
    if value is None:
        return None
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    # pandas' own mark comes first: whether it equals itself it will not say.
    return None if text in ("<NA>", "NaT") or value != value else text


def fit(
    numerics: Mapping[str, NDArray[np.float32]],
    categoricals: Mapping[str, Coded],
    features: Mapping[str, Literal["numeric", "categorical"]],
) -> Preprocessing:
    """Learn the columns of the training rows; one that is constant or all missing is dropped, by name and with its reason.

    `numerics` holds (rows,) with NaN where missing. Raises `DataError` when no column is left.
    """
    numeric_columns, category_columns, dropped = [], [], {}
    for name, kind in features.items():
        column = _fit_numeric(name, numerics[name]) if kind == "numeric" else _fit_category(name, categoricals[name])
        if isinstance(column, str):
            dropped[name] = column
        elif isinstance(column, NumericColumn):
            numeric_columns.append(column)
        else:
            category_columns.append(column)
    if not numeric_columns and not category_columns:
        raise DataError(
            f"every feature is constant or missing in the training rows: {dropped}. "
            "A model needs at least one that varies; look at the feature tables of this window."
        )
    return Preprocessing(
        features=dict(features),
        numerics=tuple(numeric_columns),
        categoricals=tuple(category_columns),
        dropped=dropped,
    )


def _fit_numeric(name: str, values: NDArray[np.float32]) -> NumericColumn | str:
    present = np.sort(values[np.isfinite(values)])
    gaps = len(present) <= len(values) * (1 - MIN_MISSING_SHARE)
    if len(present) == 0:
        return "missing in every training row"
    if present[0] == present[-1] and not gaps:
        return f"always {present[0]:g} in the training rows"
    ranks = np.linspace(0.0, 1.0, min(KNOTS, len(present)))
    # Values of the sample, never between two of them: a knot is then a float32 and means the same in JSON and in memory.
    quantiles = present[np.round(ranks * (len(present) - 1)).astype(np.int64)].astype(np.float64)
    knots, first, counts = np.unique(quantiles, return_index=True, return_counts=True)
    middle = (ranks[first] + ranks[first + counts - 1]) / 2
    scores = tuple(map(NormalDist().inv_cdf, np.clip(middle, _EXTREME, 1 - _EXTREME).tolist()))
    return NumericColumn(name=name, knots=tuple(knots.tolist()), scores=scores, indicator=gaps)


def _fit_category(name: str, column: Coded) -> CategoryColumn | str:
    counts: dict[str, int] = {}
    for key, rows in zip(
        column.keys, np.bincount(column.codes[column.codes >= 0], minlength=len(column.keys)), strict=True
    ):
        if key is not None and rows:
            counts[key] = counts.get(key, 0) + int(rows)
    if not counts:
        return "missing in every training row"
    if max(counts.values()) == len(column.codes):
        return f"always {next(iter(counts))!r} in the training rows"
    return CategoryColumn(
        name=name, vocabulary=tuple(sorted(k for k, rows in counts.items() if rows >= MIN_CATEGORY_ROWS))
    )


class Encoder:
    """A fitted `Preprocessing`, ready to encode. Holds no state that changes: safe to share between threads."""

    def __init__(self, fitted: Preprocessing) -> None:
        self.fitted = fitted
        self._numerics = [c.name for c in fitted.numerics]
        self._curves = Curves([(c.knots, c.scores) for c in fitted.numerics])
        self._indicators = [i for i, column in enumerate(fitted.numerics) if column.indicator]
        self._places = {c.name: {key: i + 1 for i, key in enumerate(c.vocabulary)} for c in fitted.categoricals}
        self._needed = [*self._numerics, *self._places]

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Places of each categorical, the shared one included."""
        return tuple(len(places) + 1 for places in self._places.values())

    @property
    def indicators(self) -> int:
        """How many numerics have a missing indicator."""
        return len(self._indicators)

    def encode_columns(self, numerics: Mapping[str, NDArray[np.float32]], categoricals: Mapping[str, Coded]) -> Encoded:
        """Encode rows that lie in columnar memory."""
        rows = len(next(iter(numerics.values()))) if numerics else len(next(iter(categoricals.values())).codes)
        categories = np.zeros((rows, len(self._places)), dtype=np.int64)
        for i, (name, places) in enumerate(self._places.items()):
            column = categoricals[name]
            # One more place at the end, which code -1 (missing) picks.
            table = np.array(
                [places.get(key, 0) if key is not None else 0 for key in column.keys] + [0], dtype=np.int64
            )
            categories[:, i] = table[column.codes]
        return self._encode([numerics[name] for name in self._numerics], categories)

    def encode_cells(self, columns: Mapping[str, Column]) -> Encoded:
        """Encode rows as they come in a request: columns of equal length, of numbers or text, None or NaN where missing.

        Raises `DataError` naming a column that is missing, of another length, or not numeric.
        """
        rows = self._rows(columns)
        categories = np.zeros((rows, len(self._places)), dtype=np.int64)
        for i, (name, places) in enumerate(self._places.items()):
            categories[:, i] = [
                places.get(value if type(value) is str else category_key(value), 0)  # type: ignore[arg-type]
                for value in columns[name]
            ]
        return self._encode(self._cells(columns, rows), categories)

    def _cells(self, columns: Mapping[str, Column], rows: int) -> "Sequence[NDArray[np.float32]] | NDArray[np.float32]":
        given = [columns[name] for name in self._numerics]
        if rows <= FEW_ROWS and set(map(type, given)) == {list}:
            with suppress(TypeError, ValueError):  # then the column is found and named below
                return np.array(given, dtype=np.float32)
        return list(map(numbers, self._numerics, given))

    def _encode(
        self, numbers: "Sequence[NDArray[np.float32]] | NDArray[np.float32]", categories: NDArray[np.int64]
    ) -> Encoded:
        numeric = self._curves.scores(numbers, len(categories))
        absent = np.isnan(numeric)
        missing = absent[:, self._indicators].astype(np.float32)
        numeric[absent] = 0.0
        return Encoded(numeric, missing, categories)

    def _rows(self, columns: Mapping[str, Column]) -> int:
        absent = [name for name in self._needed if name not in columns]
        if absent:
            raise DataError(
                f"columns {absent} are missing; the model reads {self._needed}. Ask the feature service for them."
            )
        lengths = set(map(len, map(columns.__getitem__, self._needed)))
        if len(lengths) > 1:
            told = {name: len(columns[name]) for name in self._needed}
            raise DataError(f"columns differ in length: {told}. Give one value a row to each of them, None if missing.")
        return lengths.pop()


def code(values: Column) -> Coded:
    """A categorical column of any cells, coded: each distinct one is looked at once."""
    places: dict[object, int] = {}
    codes = np.fromiter((places.setdefault(value, len(places)) for value in values), np.int32, len(values))
    return Coded(codes, tuple(category_key(value) for value in places))


def numbers(name: str, values: Column) -> NDArray[np.float32]:
    """(rows,) a numeric column of any cells, NaN where missing; raises `DataError` where one is no number."""
    try:
        if hasattr(values, "to_numpy"):  # a pandas column: its own missing marks become NaN
            return values.to_numpy(dtype=np.float32, na_value=np.nan)
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} is numeric, but a value is not: {error}. Send numbers, or null if missing."
        ) from error
