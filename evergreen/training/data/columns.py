"""A training set's rows → typed columns: one array a column, no object a row.

Reads the Parquet file of a `TrainingSet` through a memory map, checks what training relies on, and splits the rows by
day: the holdout is left out, one day in twenty of the rest validates, the others train. A `Snapshot` gives one column
at a time or all columns of a stretch of rows, so that memory does not follow the size of the file. Free of torch. Called
by `dataset.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.data.preprocessing import Coded, category_key
from evergreen.types import TrainingSet

VALIDATION_EVERY = 20
"""One day in so many draws the curve and does not train. Whole days, because the rows of one day are alike; spread over the
window, because the latest days are what a model can least do without."""
_DAY = 86_400_000_000
"""In microseconds."""
STRETCH_ROWS = 1 << 16
"""Rows that are in memory at a time."""
Rows = NDArray[np.bool_]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Columns:
    """Rows in memory, oldest first."""

    labels: NDArray[np.float32]
    """NaN where there is no finite number."""
    auxiliary: NDArray[np.float32] | None
    """The second label, NaN where it was not known; None where the training set has none."""
    numerics: Mapping[str, NDArray[np.float32]]
    """NaN where missing."""
    categoricals: Mapping[str, Coded]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Rows) -> "Columns":
        return Columns(
            self.labels[rows],
            None if self.auxiliary is None else self.auxiliary[rows],
            {name: values[rows] for name, values in self.numerics.items()},
            {name: column[rows] for name, column in self.categoricals.items()},
        )


def validation_days(training_set: TrainingSet) -> NDArray[np.datetime64]:
    """(rows that validate,) the day of each in UTC; raises as `Snapshot` does."""
    snapshot = Snapshot(training_set)
    return snapshot.days[snapshot.validates]


class Snapshot:
    """The file of a training set, checked; what is in the holdout never leaves it.

    Raises `DataError` when the file is not the one described, has no rows before the holdout, or lacks a column. What a
    label must be is asked by `label.fit`.
    """

    trains: Rows
    """(rows of the file,)"""
    validates: Rows
    """(rows of the file,)"""
    days: NDArray[np.datetime64]
    """(rows of the file,) the day of each in UTC."""

    def __init__(self, training_set: TrainingSet, since: datetime | None = None) -> None:
        """With `since` the rows before it neither train nor validate."""
        self._set = training_set
        self._file = pq.ParquetFile(training_set.uri, memory_map=True)
        self._check_file()
        self._numerics = [name for name, kind in training_set.features.items() if kind == "numeric"]
        self._categoricals = [name for name, kind in training_set.features.items() if kind != "numeric"]
        self._labels = [name for name in ("label", "auxiliary") if name in self._file.schema_arrow.names]
        asked = _microseconds(self._read("event_timestamp"))
        before = asked < round(training_set.holdout.start.timestamp() * 1e6)
        if not before.any():
            raise DataError(
                f"training set of {training_set.model!r} has no rows before its holdout {training_set.holdout}: all "
                f"{training_set.rows:,} are in it. Ask for a later moment, or lower [train].holdout_days in the model's file."
            )
        if since is not None:
            before &= asked >= round(since.timestamp() * 1e6)
            if not before.any():
                raise DataError(
                    f"training set of {training_set.model!r} has no rows from {since} up to its holdout "
                    f"{training_set.holdout}: there is nothing new to learn. Ask for a later moment."
                )
        days = asked // _DAY
        validates = (days - days.min()) % VALIDATION_EVERY == VALIDATION_EVERY // 2
        self.trains, self.validates = before & ~validates, before & validates
        self.days = days.astype("datetime64[D]")

    def labels(self, rows: Rows) -> NDArray[np.float32]:
        """The labels of some rows of the file, NaN where there is no finite number."""
        return _numeric("label", self._read("label"))[rows]

    def numerics(self, rows: Rows) -> Mapping[str, NDArray[np.float32]]:
        """Each numeric of some rows of the file, read when it is asked for and not kept."""
        return _OnDemand(self._numerics, lambda name: _numeric(name, self._read(name))[rows])

    def categoricals(self, rows: Rows) -> Mapping[str, Coded]:
        """Each categorical of some rows of the file, read when it is asked for and not kept."""
        return _OnDemand(self._categoricals, lambda name: _coded(self._read(name))[rows])

    def stretches(self) -> Iterator[tuple[Columns, Columns]]:
        """The rows that train and those that validate, a stretch of the file at a time."""
        start = 0
        for batch in self._file.iter_batches(STRETCH_ROWS, columns=self._needed):
            part = slice(start, start + len(batch))
            start = part.stop
            if (self.trains[part] | self.validates[part]).any():
                columns = self._columns(batch)
                yield columns[self.trains[part]], columns[self.validates[part]]

    @property
    def _needed(self) -> list[str]:
        return [*self._labels, *self._set.features]

    def _columns(self, rows: pa.Table | pa.RecordBatch) -> Columns:
        return Columns(
            labels=_numeric("label", rows["label"]),
            auxiliary=_numeric("auxiliary", rows["auxiliary"]) if "auxiliary" in self._labels else None,
            numerics={name: _numeric(name, rows[name]) for name in self._numerics},
            categoricals={name: _coded(rows[name]) for name in self._categoricals},
        )

    def _read(self, name: str) -> pa.ChunkedArray:
        return self._file.read(columns=[name])[name]

    def _check_file(self) -> None:
        found = self._file.metadata.num_rows
        if found != self._set.rows:
            raise DataError(
                f"{self._set.uri} has {found:,} rows, its description says {self._set.rows:,}: "
                "it is not the snapshot it is taken for. Build the training set again."
            )
        known = self._file.schema_arrow.names
        absent = [name for name in ("event_timestamp", "label", *self._set.features) if name not in known]
        if absent:
            raise DataError(f"training set {self._set.uri} lacks columns {absent}; it has {known}. Build it again.")


class _OnDemand(Mapping[str, Value]):
    def __init__(self, names: list[str], read: Callable[[str], Value]) -> None:
        self._names, self._read = names, read

    def __getitem__(self, name: str) -> Value:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _microseconds(moments: pa.ChunkedArray) -> NDArray[np.int64]:
    """(rows,) since 1970 in UTC."""
    return moments.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]


def _numeric(name: str, column: pa.ChunkedArray | pa.Array) -> NDArray[np.float32]:
    try:
        values = column.cast(pa.float32(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{name!r} is numeric, but its column is {column.type}: {error}") from error
    numbers = values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def _coded(column: pa.ChunkedArray | pa.Array) -> Coded:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, tuple(category_key(value) for value in coded.dictionary.to_pylist()))
