"""A Feast offline store: point-in-time joins as one DuckDB ASOF JOIN a view, over Parquet files.

Feast's own stores are wrong (`dask` drops and collapses rows) or pay for the length of the TTL (`duckdb` joins by
inequality). Here the newest row at or before the asked moment is found by sorting, and the TTL is looked at afterwards,
so neither time nor memory grows with it. Rules, which are Feast's where Feast states them:

- a value stamped with the very moment that is asked for counts as known;
- it may be as old as the TTL, that age included; an older one is missing, and so is one whose key is null;
- of rows with equal keys and timestamp the one created last counts, and without a created column the one whose values
  sort last, so that the answer never depends on the order of files;
- every asked row comes back once, in the order asked.

Sources are Feast `FileSource`s; a relative path lies under `root`, and of files named `day=YYYY-MM-DD.parquet` (rows by
the UTC day of their timestamp) only the days that can matter are opened. Read only: feature tables are written by
their domain's pipeline. Named in `feature_repo/feature_store.yaml`; called by Feast. To read from elsewhere, extend
`scan`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView, FileSource, OnDemandFeatureView
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from pydantic import StrictStr

from evergreen.errors import DataError

_ROW, _MOMENT = "__row", "__moment"


class AsofOfflineStoreConfig(FeastConfigBaseModel):
    """The `offline_store` block of `feature_store.yaml`."""

    type: Literal["evergreen.adapters.asof_store.AsofOfflineStore"] = "evergreen.adapters.asof_store.AsofOfflineStore"
    root: StrictStr = "."
    """Folder that relative source paths start from."""
    threads: int = 1
    """Threads a query may use."""
    memory_limit: StrictStr = "4GB"
    """Beyond it DuckDB spills to disk."""


class AsofRetrievalJob(RetrievalJob):
    """A question that has been answered, on-demand features included."""

    def __init__(
        self, rows: pa.Table, full_feature_names: bool = False, metadata: RetrievalMetadata | None = None
    ) -> None:
        self._rows = rows
        self._full_feature_names = full_feature_names
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        """Whether columns are named `view__feature`."""
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        """Those left for Feast to compute: none."""
        return []

    @property
    def metadata(self) -> RetrievalMetadata | None:
        """What was asked for."""
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 - Feast's signature
        return self._rows

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:  # noqa: ARG002 - Feast's signature
        frame: pd.DataFrame = self._rows.to_pandas()
        return frame


class _Lookup(NamedTuple):
    """One view of one question: where its rows are and what is wanted of them."""

    source: FileSource
    keys: dict[str, str]
    """Column of the source → column of the question."""
    features: dict[str, str]
    """Column of the source → column of the answer."""
    stamp: str
    """Column of the source: when the row became known."""
    created: str | None
    """Column of the source that breaks ties, if there is one."""
    ranked: list[str]
    """Columns of the source that break the others: all features of the view, whichever are asked for, as when it is served."""
    ttl: timedelta | None


class AsofOfflineStore(OfflineStore):
    """See the module."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
    ) -> RetrievalJob:
        """The features of `feature_refs` as known at each row of `entity_df`; see the module for the rules."""
        if not isinstance(entity_df, pd.DataFrame):
            raise DataError(
                f"the ASOF store joins to a pandas frame of entity rows, not to {entity_df!r}; pass a frame"
            )
        if entity_df.empty:
            raise DataError("there are no entity rows to join features to; ask for at least one")
        column = _timestamp_column(entity_df)
        moments = _moments(entity_df[column])
        answer = pa.Table.from_pandas(entity_df, preserve_index=False)
        asked = answer.append_column(_MOMENT, moments).append_column(_ROW, pa.array(range(len(answer)), pa.int64()))
        with _connection(config) as connection:
            for view in feature_views:
                lookup = _lookup(view, feature_refs, full_feature_names)
                answer = _append(answer, _as_of(connection, config, asked, lookup))
        span = pc.min_max(moments).as_py()
        metadata = RetrievalMetadata(
            features=feature_refs,
            keys=sorted(set(entity_df.columns) - {column}),
            min_event_timestamp=span["min"],
            max_event_timestamp=span["max"],
        )
        named = {ref.split(":", 1)[0] for ref in feature_refs}
        # Feast's `get_requested_odfvs` lists from a cache that may be of before a view was applied: its key is an id().
        for view in registry.list_on_demand_feature_views(project):
            if view.projection.name_to_use() in named:
                answer = _append(answer, _on_demand(answer, view, feature_refs, full_feature_names))
        return AsofRetrievalJob(answer, full_feature_names, metadata)

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The newest row of each key with a timestamp in [start_date, end_date]: what materialization writes. A null is no key."""
        keys = ", ".join(map(_quoted, join_key_columns))
        known = " ".join(f"AND {_quoted(key)} IS NOT NULL" for key in join_key_columns)
        order = _last_first(timestamp_field, created_timestamp_column, feature_name_columns)
        latest = f"{known} QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {order}) = 1"
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(config, data_source, columns, timestamp_field, (start_date, end_date), latest)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row with a timestamp in [start_date, end_date]; either may be left open."""
        columns = [*join_key_columns, *feature_name_columns, timestamp_field, created_timestamp_column]
        return _pull(config, data_source, columns, timestamp_field, (start_date, end_date))

    def validate_data_source(self, config: RepoConfig, data_source: DataSource) -> None:  # noqa: ARG002
        """Refuse what this store cannot read. Files may come later: a new installation applies before it builds."""
        _file_source(data_source)


def scan(config: RepoConfig, source: FileSource, first: datetime | None, last: datetime | None) -> str:
    """SQL that reads the files of `source` which can hold timestamps in [first, last]; raises `DataError` if none are there."""
    path = str(source.path)
    location = path if "://" in path or Path(path).is_absolute() else str(Path(config.offline_store.root) / path)
    if "://" in location:
        return f"read_parquet('{location}')"
    folder = Path(location).parent if "*" in location else Path(location)
    files = (
        sorted(folder.glob(Path(location).name if "*" in location else "*.parquet")) if folder.is_dir() else [folder]
    )
    files = [file for file in files if file.is_file()]
    if not files:
        raise DataError(f"source {source.name!r} has no Parquet file at {location}; build its feature table first")
    low = f"day={first.astimezone(UTC):%Y-%m-%d}" if first else ""
    high = f"day={last.astimezone(UTC):%Y-%m-%d}" if last else "day=~"
    wanted = [file for file in files if not file.stem.startswith("day=") or low <= file.stem <= high]
    return f"read_parquet({[str(file) for file in wanted or files[:1]]})"


@cache
def _database(threads: int, memory_limit: str) -> duckdb.DuckDBPyConnection:
    """An empty database in memory; opening one costs 10 ms, a cursor on it next to nothing."""
    return duckdb.connect(config={"threads": threads, "memory_limit": memory_limit})


@contextmanager
def _connection(config: RepoConfig) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection of the caller's own: temporary tables are not seen by others."""
    with _database(config.offline_store.threads, config.offline_store.memory_limit).cursor() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def _as_of(connection: duckdb.DuckDBPyConnection, config: RepoConfig, asked: pa.Table, lookup: _Lookup) -> pa.Table:
    """The wanted columns of one view, one row a row of `asked`, in its order."""
    span = pc.min_max(asked.column(_MOMENT)).as_py()
    _make_known(connection, config, lookup, span["min"] - lookup.ttl if lookup.ttl else None, span["max"])
    fresh = "true" if lookup.ttl is None else f"known.{_MOMENT} >= asked.{_MOMENT} - $ttl"
    features = ", ".join(
        f"CASE WHEN {fresh} THEN known.{_quoted(column)} END AS {_quoted(name)}"
        for column, name in lookup.features.items()
    )
    same = " AND ".join(f"known.{_quoted(key)} = asked.{_quoted(name)}" for key, name in lookup.keys.items())
    connection.register("asked", asked)
    return connection.sql(
        f"SELECT {features} FROM asked ASOF LEFT JOIN known ON {same} AND known.{_MOMENT} <= asked.{_MOMENT} "
        f"ORDER BY asked.{_ROW}",
        params={"ttl": lookup.ttl} if lookup.ttl else None,
    ).to_arrow_table()


def _make_known(
    connection: duckdb.DuckDBPyConnection,
    config: RepoConfig,
    lookup: _Lookup,
    oldest: datetime | None,
    newest: datetime,
) -> None:
    """The table `known`: the view's rows of [oldest, newest], one a key and moment, as an ASOF JOIN would take any of them."""
    wanted = ", ".join(_quoted(name) for name in dict.fromkeys([*lookup.keys, *lookup.features]))
    stamp = f"{_quoted(lookup.stamp)}::TIMESTAMPTZ"
    made = (
        f"CREATE OR REPLACE TEMP TABLE known AS SELECT {wanted}, {stamp} AS {_MOMENT} "
        f"FROM {scan(config, lookup.source, oldest, newest)} "
        f"WHERE {stamp} <= $newest AND ($oldest IS NULL OR {stamp} >= $oldest)"
    )
    between = {"newest": newest, "oldest": oldest}
    connection.execute(made, between)
    keys = ", ".join(map(_quoted, lookup.keys))
    if connection.execute(f"SELECT 1 FROM known GROUP BY {keys}, {_MOMENT} HAVING count(*) > 1 LIMIT 1").fetchone():
        order = _last_first(lookup.stamp, lookup.created, lookup.ranked)
        last = f"row_number() OVER (PARTITION BY {keys}, {stamp} ORDER BY {order}) = 1"
        connection.execute(f"{made} QUALIFY {last}", between)


def _pull(
    config: RepoConfig,
    data_source: DataSource,
    columns: Sequence[str | None],
    timestamp: str,
    between: tuple[datetime | None, datetime | None],
    latest: str = "",
) -> RetrievalJob:
    first, last = between
    wanted = ", ".join(_quoted(name) for name in columns if name)
    stamp = f"{_quoted(timestamp)}::TIMESTAMPTZ"
    query = (
        f"SELECT {wanted} FROM {scan(config, _file_source(data_source), first, last)} "
        f"WHERE ($first IS NULL OR {stamp} >= $first) AND ($last IS NULL OR {stamp} <= $last) {latest}"
    )
    with _connection(config) as connection:
        return AsofRetrievalJob(connection.sql(query, params={"first": first, "last": last}).to_arrow_table())


def _lookup(view: FeatureView, feature_refs: Sequence[str], full_feature_names: bool) -> _Lookup:
    source = _file_source(view.batch_source)
    renamed = {new: old for old, new in source.field_mapping.items()}
    created = source.created_timestamp_column
    name = view.projection.name_to_use()
    features = [ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == name]
    keys = view.projection.join_key_map or {entity.name: entity.name for entity in view.entity_columns}
    return _Lookup(
        source=source,
        keys={renamed.get(key, key): asked for key, asked in keys.items()},
        features={renamed.get(f, f): f"{name}__{f}" if full_feature_names else f for f in dict.fromkeys(features)},
        stamp=renamed.get(source.timestamp_field, source.timestamp_field),
        created=renamed.get(created, created) if created else None,
        ranked=[renamed.get(field.name, field.name) for field in view.features],
        ttl=view.ttl or None,  # Feast's zero means forever
    )


def _on_demand(
    rows: pa.Table, view: OnDemandFeatureView, feature_refs: Sequence[str], full_feature_names: bool
) -> pa.Table:
    """The requested features of an on-demand view. Feast would hand it every column of `rows` as Python objects."""
    sources = view.source_feature_view_projections.values()
    prefixes = {source.name: f"{source.name_to_use()}__" if full_feature_names else "" for source in sources}
    inputs = [prefixes[source.name] + field.name for source in sources for field in source.features]
    inputs += view.get_request_data_schema()
    computed = view.transform_arrow(rows.select(list(dict.fromkeys(inputs))), full_feature_names)
    name = view.projection.name_to_use()
    prefix = f"{name}__" if full_feature_names else ""
    return computed.select([prefix + ref.split(":", 1)[1] for ref in feature_refs if ref.split(":", 1)[0] == name])


def _file_source(source: DataSource | None) -> FileSource:
    if not isinstance(source, FileSource):
        raise DataError(f"the ASOF store reads FileSource, not {type(source).__name__}; give the view a file source")
    return source


def _timestamp_column(rows: pd.DataFrame) -> str:
    """`event_timestamp`, or the only column of times."""
    if "event_timestamp" in rows.columns:
        return "event_timestamp"
    times = [str(name) for name in rows.columns if pd.api.types.is_datetime64_any_dtype(rows[name])]
    if len(times) != 1:
        raise DataError(f"entity rows need a column event_timestamp or exactly one column of times; these have {times}")
    return times[0]


def _moments(column: Any) -> pa.Array:
    moments = pd.to_datetime(column, utc=True)
    if moments.isna().any():
        raise DataError(
            f"{int(moments.isna().sum()):,} entity rows have no timestamp; every row must say when it is asked"
        )
    return pa.Array.from_pandas(moments).cast(pa.timestamp("us", tz="UTC"), safe=False)


def _append(answer: pa.Table, columns: pa.Table) -> pa.Table:
    for name in columns.column_names:
        answer = answer.append_column(name, columns.column(name))
    return answer


def _last_first(timestamp: str, created: str | None, features: Sequence[str]) -> str:
    terms = [timestamp, *([created] if created else []), *features]
    return ", ".join(f"{_quoted(term)} DESC NULLS LAST" for term in terms)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
