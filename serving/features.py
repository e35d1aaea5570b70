"""Rows to be scored, with their features: looked up online, or joined point in time beforehand.

Both ways end in the same `Examples`, so whatever scores and logs them is the same code. Freshness is Feast's adapter's
work (`Features.online`); what to do about an entity nobody has seen is decided here, by the spec.
Called by `scoring.py`. To bring features from elsewhere, make `Examples` of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from evergreen.errors import DataError, UnknownEntity
from evergreen.spec import ModelSpec, ServeConfig
from serving.caches import FeatureCache
from serving.loaded import Kind
from serving.metrics import Metrics

if TYPE_CHECKING:
    from evergreen.adapters.feast import Features

KIND_OF: Mapping[str, Kind] = {
    "key": "key",
    "String": "string",
    "Int32": "integer",
    "Int64": "integer",
    "Float32": "number",
    "Float64": "number",
    "UnixTimestamp": "timestamp",
}
"""What `Features.needs` calls a column → what a request carries for it."""
NAMED_ROWS = 5
"""How many rows a refusal names."""


class OnlineRead(Protocol):
    """What an online read gives: columns of features, and per row what was missing."""

    @property
    def columns(self) -> dict[str, list[Any]]:
        """Feature → one value a row; None where there is none, or it is too old or too new."""

    @property
    def stale(self) -> list[tuple[str, ...]]:
        """Views whose values were not used, a row."""

    @property
    def unknown(self) -> list[bool]:
        """Rows with an entity no view has ever seen."""

    @property
    def oldest_seconds(self) -> Mapping[str, float]:
        """View → age of the oldest of its values that is used."""


class OnlineSource(Protocol):
    """The part of `Features` that a lookup needs."""

    def online(
        self, service: str, rows: Mapping[str, Sequence[Any]], as_of: datetime, cache: FeatureCache | None = None
    ) -> OnlineRead:
        """One bulk read for all rows, of what is not in the cache."""


@dataclass(frozen=True)
class Examples:
    """Rows with their features, column by column; every sequence has one entry a row."""

    example_ids: Sequence[str]
    moments: Sequence[datetime]
    """The moment whose knowledge the features are of."""
    columns: Mapping[str, Sequence[Any] | NDArray[Any]]
    """Features, entity keys and request columns."""
    stale: Sequence[tuple[str, ...]]
    unknown: Sequence[bool] = ()
    """Rows with an entity the online store has never seen; empty where nothing was looked up."""
    asked: Sequence[str] = ()
    """Columns the request brought."""
    brought: bool = False
    """The request brought its features, so nothing says that they are those of the store."""

    def __len__(self) -> int:
        return len(self.example_ids)


class FeatureLookup:
    """Reads the online store for a request and applies the spec's policy for unknown entities."""

    def __init__(self, source: OnlineSource, metrics: Metrics) -> None:
        self._source = source
        self._metrics = metrics
        self._caches: dict[str, tuple[ServeConfig, FeatureCache | None]] = {}

    def look_up(
        self, spec: ModelSpec, example_ids: Sequence[str], rows: Mapping[str, Sequence[Any]], as_of: datetime
    ) -> Examples:
        """Features of all rows as of one moment, in one read; rows of unknown entities are counted.

        `rows` holds the entity keys and request columns, one value a row.
        """
        read = self._source.online(spec.data.feature_service, rows, as_of, self._cache(spec))
        self._count(spec, read)
        moments = [as_of.astimezone(UTC)] * len(example_ids)
        return Examples(example_ids, moments, {**rows, **read.columns}, read.stale, read.unknown, tuple(rows))

    def _cache(self, spec: ModelSpec) -> FeatureCache | None:
        """The model's; another one, empty, where its file says something else now."""
        rules = spec.serve
        kept = self._caches.get(spec.name)
        if kept is None or kept[0] != rules:
            on = rules.feature_cache_entries and rules.feature_cache_seconds
            kept = (
                rules,
                FeatureCache(rules.feature_cache_entries, rules.feature_cache_seconds, self._metrics, spec.name)
                if on
                else None,
            )
            self._caches[spec.name] = kept
        return kept[1]

    def _count(self, spec: ModelSpec, read: OnlineRead) -> None:
        unknown = sum(read.unknown)
        if unknown:
            self._metrics.unknown_entities.labels(spec.name, spec.serve.unknown_entity).inc(unknown)
        for views in read.stale:
            for view in views:
                self._metrics.stale_features.labels(spec.name, view).inc()
        for view, seconds in read.oldest_seconds.items():
            self._metrics.feature_age_seconds.labels(spec.name, view).observe(seconds)


def given(example_ids: Sequence[str], rows: Mapping[str, Sequence[Any]], as_of: datetime) -> Examples:
    """Rows that bring their features themselves; nothing is looked up, so nothing is stale or unknown."""
    moments = [as_of.astimezone(UTC)] * len(example_ids)
    return Examples(example_ids, moments, rows, [()] * len(example_ids), brought=True)


def refusal(spec: ModelSpec, examples: Examples, rows: range) -> UnknownEntity | None:
    """Why some of the rows are not answered: the spec refuses entities the store has never seen, and one names one."""
    unknown = [examples.unknown[row] for row in rows] if examples.unknown else []
    if spec.serve.unknown_entity == "refuse" and any(unknown):
        return UnknownEntity(_refusal(spec, examples, rows, unknown))
    return None


def needs(features: "Features", service: str) -> dict[str, Kind]:
    """Columns a row must bring for a service: its entity keys, then its request columns.

    Raises `FeatureServiceMissing`, and `DataError` for a request column of a type that no request can carry.
    """
    columns = features.needs(service)
    for name, dtype in columns.items():
        if dtype not in KIND_OF:
            raise DataError(f"request column {name!r} of feature service {service!r} is a {dtype}; use {list(KIND_OF)}")
    return {name: KIND_OF[dtype] for name, dtype in columns.items()}


def joined(frame: pd.DataFrame) -> Examples:
    """Rows whose features were joined point in time: `example_id`, `event_timestamp` and a column a feature.

    No view is named as stale: a value that was not known at its moment is just missing here.
    Raises `DataError` when one of those two columns is not there or has empty cells.
    """
    for column in ("example_id", "event_timestamp"):
        if column not in frame:
            raise DataError(f"the frame to score has no column {column!r}; it has {sorted(map(str, frame.columns))}")
        if empty := int(frame[column].isna().sum()):
            raise DataError(f"{empty} of {len(frame)} rows to score have no {column}; every row needs one")
    stamps = pd.to_datetime(frame["event_timestamp"], utc=True).dt.floor("us")
    return Examples(
        example_ids=frame["example_id"].astype(str).tolist(),
        moments=[stamp.to_pydatetime() for stamp in stamps],
        columns={str(name): _values(frame[name]) for name in frame.columns},
        stale=[()] * len(frame),
    )


def _values(column: "pd.Series[Any]") -> NDArray[Any]:
    """One column, its missing values NaN among numbers and None elsewhere, whichever of pandas' dtypes it has."""
    if is_numeric_dtype(column.dtype):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    values = column.to_numpy(dtype=object, copy=True)
    values[column.isna().to_numpy()] = None
    return values


def _refusal(spec: ModelSpec, examples: Examples, rows: range, unknown: Sequence[bool]) -> str:
    where = [row for row, is_unknown in enumerate(unknown) if is_unknown]
    named = "; ".join(
        f"row {row} ({examples.example_ids[rows[row]]}): "
        + ", ".join(f"{name}={examples.columns[name][rows[row]]}" for name in examples.asked)
        for row in where[:NAMED_ROWS]
    )
    more = f" and {len(where) - NAMED_ROWS} more" if len(where) > NAMED_ROWS else ""
    return (
        f"{len(where)} of {len(unknown)} rows name an entity the online store has never seen, and "
        f"[serve].unknown_entity of {spec.name} is 'refuse': {named}{more}. "
        "Send known entities, or set it to 'defaults' in the model's file."
    )
