"""A training set's rows → columnar memory: one array a column, no object a row.

Reads the Parquet file of a `TrainingSet` once, checks what training relies on, and splits the rows by day: the
holdout is left out, one day in twenty of the rest validates, the others train. Free of torch. Called by every
rank.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.preprocessing import Coded, category_key
from evergreen.types import TrainingSet

VALIDATION_EVERY = 20
"""One day in so many draws the curve and does not train. Whole days, because the rows of one day are alike; spread over the
window, because the latest days are what a model can least do without."""


@dataclass(frozen=True)
class Columns:
    """Rows in memory, oldest first."""

    labels: NDArray[np.float32]
    auxiliary: NDArray[np.float32] | None
    """The second label, NaN where it was not known; None where the training set has none."""
    numerics: dict[str, NDArray[np.float32]]
    """NaN where missing."""
    categoricals: dict[str, Coded]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: NDArray[np.bool_]) -> "Columns":
        return Columns(
            self.labels[rows],
            None if self.auxiliary is None else self.auxiliary[rows],
            {name: values[rows] for name, values in self.numerics.items()},
            {name: column[rows] for name, column in self.categoricals.items()},
        )


def read_columns(training_set: TrainingSet) -> tuple[Columns, Columns]:
    """The rows that train and those that validate; the holdout is never read into either.

    Raises `DataError` when the file is not the one described, has no rows before the holdout, lacks a column, or its labels
    are not zeros and ones of both kinds.
    """
    table = _read(training_set)
    labels = _labels(table, training_set)
    numerics, categoricals = {}, {}
    for name, kind in training_set.features.items():
        if kind == "numeric":
            numerics[name] = _numeric(name, table[name])
        else:
            categoricals[name] = _coded(table[name])
    auxiliary = _numeric("auxiliary", table["auxiliary"]) if "auxiliary" in table.column_names else None
    rows = Columns(labels, auxiliary, numerics, categoricals)
    validates = _days(table) % VALIDATION_EVERY == VALIDATION_EVERY // 2
    training, validation = rows[~validates], rows[validates]
    if training.labels.min() == training.labels.max():
        raise DataError(
            f"all {len(training):,} training rows of {training_set.model!r} before {training_set.holdout.start} have label "
            f"{training.labels[0]:.0f}; a binary model needs both. Check the labels table or widen the training window."
        )
    return training, validation


def _read(training_set: TrainingSet) -> pa.Table:
    file = pq.ParquetFile(training_set.uri)
    if file.metadata.num_rows != training_set.rows:
        raise DataError(
            f"{training_set.uri} has {file.metadata.num_rows:,} rows, its description says {training_set.rows:,}: "
            "it is not the snapshot it is taken for. Build the training set again."
        )
    known = file.schema_arrow.names
    needed = ["event_timestamp", "label", *training_set.features]
    absent = [name for name in needed if name not in known]
    if absent:
        raise DataError(f"training set {training_set.uri} lacks columns {absent}; it has {known}. Build it again.")
    table = file.read(columns=needed + [name for name in ("auxiliary",) if name in known])
    table = table.filter(pc.less(table["event_timestamp"], pa.scalar(training_set.holdout.start)))
    if table.num_rows == 0:
        raise DataError(
            f"training set of {training_set.model!r} has no rows before its holdout {training_set.holdout}: all "
            f"{training_set.rows:,} are in it. Ask for a later moment, or lower [train].holdout_days in the model's file."
        )
    return table


def _days(table: pa.Table) -> NDArray[np.int64]:
    """Days in UTC since that of the oldest row."""
    days = table["event_timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy() // 86_400_000_000
    return days - days.min()  # type: ignore[no-any-return]


def _labels(table: pa.Table, training_set: TrainingSet) -> NDArray[np.float32]:
    labels = _numeric("label", table["label"])
    wrong = ~np.isin(labels, (0.0, 1.0))
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum()):,} of {len(labels):,} labels of {training_set.model!r} are not 0 or 1 "
            f"(the first is {labels[wrong][0]}); a binary model needs zeros and ones. Check [data].label in the model's file."
        )
    return labels


def _numeric(name: str, column: pa.ChunkedArray) -> NDArray[np.float32]:
    try:
        values = column.cast(pa.float32(), safe=False).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"feature {name!r} is numeric, but its column is {column.type}: {error}") from error
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _coded(column: pa.ChunkedArray) -> Coded:
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    merged = coded.unify_dictionaries().combine_chunks()
    codes = merged.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32)
    return Coded(codes, tuple(category_key(value) for value in merged.dictionary.to_pylist()))
