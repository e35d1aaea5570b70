"""Feature tables as files: what can be asked about, what came true, and training sets made of both.

Reads the Parquet partitions that a domain's pipeline writes, with DuckDB, for any domain; a table's `event_timestamp`
is when its row became known. A training set is a snapshot named by the digest of its content, so that making it again
from the same tables gives the same file. Not here: the features themselves (`feast.py`). Called by tasks, through
`evergreen.wiring`. To read from object storage, change `_read`.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from evergreen.adapters.feast import Features
from evergreen.errors import DataError, LabelsNotReady
from evergreen.figures import LABELS, odd_labels
from evergreen.spec import ModelSpec
from evergreen.types import Digest, TrainingSet, Window

FEED_DAYS = timedelta(days=14)
"""How far back a table's rhythm is looked at."""
_MOMENTS = ("event_timestamp", "label_timestamp")


def read_examples(data: Path, spec: ModelSpec, window: Window, as_of: datetime) -> pd.DataFrame:
    """Rows of `[data].examples` that are asked about in `window`, as known at `as_of`.

    `event_timestamp` is the moment of asking, `event_time` less the lead; a row that was not yet known then is not
    among them. Sorted by that moment and `example_id`, each example once, as last known when it is asked about.
    """
    when = spec.data.event_time
    examples = _read(
        data,
        spec.data.examples,
        [when, "example_id", "event_timestamp"],
        f"""
        SELECT * REPLACE ("{when}" - $lead AS event_timestamp) FROM rows
        WHERE "{when}" - $lead >= $start AND "{when}" - $lead < $end
            AND event_timestamp <= $as_of AND event_timestamp <= "{when}" - $lead
        QUALIFY row_number() OVER (PARTITION BY example_id ORDER BY rows.event_timestamp DESC) = 1
        ORDER BY event_timestamp, example_id
        """,
        {"lead": spec.data.lead, "start": window.start, "end": window.end, "as_of": as_of},
        until=min(window.end, as_of),
    )
    return examples


def read_asked(data: Path, spec: ModelSpec, asked: pd.DataFrame) -> pd.DataFrame:
    """The rows of `[data].examples` that were asked about, each as last known at the moment it was asked about.

    `asked` has `prediction_id`, `example_id` and `event_timestamp`, the moment; both first and last are in the answer. Sorted
    by moment and `prediction_id`; what was not known by then is left out.
    """
    return _read(
        data,
        spec.data.examples,
        ["example_id", "event_timestamp"],
        """
        SELECT asked.prediction_id, rows.* REPLACE (asked.event_timestamp AS event_timestamp)
        FROM asked JOIN rows ON rows.example_id = asked.example_id AND rows.event_timestamp <= asked.event_timestamp
        QUALIFY row_number() OVER (PARTITION BY asked.prediction_id ORDER BY rows.event_timestamp DESC) = 1
        ORDER BY asked.event_timestamp, asked.prediction_id
        """,
        {},
        until=asked["event_timestamp"].max().to_pydatetime(),
        frames={"asked": asked},
    )


def read_outcomes(data: Path, spec: ModelSpec, known: Window) -> pd.DataFrame:
    """`example_id`, `label` and `label_timestamp` of the outcomes that became known in a window.

    An outcome is known from the first row of its example that has a label; later rows add detail and change nothing. A
    label of classes is a whole number, else a float. Raises `DataError` when one is not of the spec's task.
    """
    outcomes = _read(
        data,
        spec.data.labels,
        ["example_id", spec.data.label, "event_timestamp"],
        f"""
        SELECT example_id, arg_min("{spec.data.label}", event_timestamp)::DOUBLE AS label,
            min(event_timestamp) AS label_timestamp
        FROM rows WHERE NOT isnan("{spec.data.label}"::DOUBLE) AND event_timestamp < $end
        GROUP BY example_id HAVING min(event_timestamp) >= $start
        ORDER BY label_timestamp, example_id
        """,
        {"start": known.start, "end": known.end},
        until=known.end,
    )
    task, labels = spec.model.task, outcomes["label"].to_numpy()
    odd = odd_labels(task, labels)
    if odd.any():
        raise DataError(
            f"{int(odd.sum()):,} labels in column {spec.data.label!r} of table {spec.data.labels!r} are not {LABELS[task]} (the "
            f"first is {labels[odd][0]:g}); [model].task is {task!r}. Correct the column or the task."
        )
    return outcomes if task == "regression" else outcomes.astype({"label": "int32"})


def read_auxiliary(data: Path, spec: ModelSpec, known_before: datetime) -> pd.DataFrame:
    """`example_id` and `auxiliary`, the last value of `[data].auxiliary_label` that was known before a moment."""
    return _read(
        data,
        spec.data.labels,
        ["example_id", str(spec.data.auxiliary_label), "event_timestamp"],
        f"""
        SELECT example_id, arg_max("{spec.data.auxiliary_label}", event_timestamp)::DOUBLE AS auxiliary
        FROM rows WHERE "{spec.data.auxiliary_label}" IS NOT NULL AND event_timestamp < $end
        GROUP BY example_id
        """,
        {"end": known_before},
        until=known_before,
    )


def known_moments(data: Path, tables: Sequence[str], as_of: datetime) -> dict[str, list[datetime]]:
    """By table, the moments up to `as_of` at which rows of it became known, of the last `FEED_DAYS` days; empty ones left out."""
    since = as_of - FEED_DAYS
    moments = {}
    for table in tables:
        if not any((data / "features" / table).glob("day=*.parquet")):
            continue
        rows = _read(
            data,
            table,
            ["event_timestamp"],
            "SELECT DISTINCT event_timestamp FROM rows WHERE event_timestamp BETWEEN $since AND $until ORDER BY 1",
            {"since": since, "until": as_of},
            until=as_of,
            since=since,
        )
        if not rows.empty:
            moments[table] = [moment.to_pydatetime() for moment in rows["event_timestamp"]]
    return moments


def build_training_set(data: Path, spec: ModelSpec, features: Features, as_of: datetime) -> TrainingSet:
    """Snapshot the rows a candidate may learn from and be judged on, as known at `as_of`.

    Holds the examples of the spec's training window whose outcome was known by `as_of`; one before the holdout only if
    its outcome was known before the holdout starts, as it would have been to a model that then served the holdout.
    Columns: `example_id`, `event_timestamp`, `label_timestamp`, `label`, `auxiliary` if the spec has one (NaN where it
    was not known when the holdout starts), the slices, the features. Raises `DataError` when rows or columns are missing
    and `LabelsNotReady` when the holdout or what is before it has no outcome yet.
    """
    window = spec.training_window(as_of)
    holdout = spec.holdout(window)
    examples = read_examples(data, spec, window, as_of)
    if examples.empty:
        raise DataError(
            f"table {spec.data.examples!r} has no row asked about in {window}, as known at {as_of.isoformat()}. "
            "Ingest and build that window, or change [train] in the model's file."
        )
    # An outcome is inclusive of `as_of`: what became known at this very moment is known.
    everything = Window(start=datetime(1970, 1, 1, tzinfo=UTC), end=as_of + timedelta(microseconds=1))
    rows = examples.merge(read_outcomes(data, spec, everything), on="example_id", how="inner")
    before = rows["event_timestamp"] < holdout.start
    rows = rows[~before | (rows["label_timestamp"] < holdout.start)]
    judging = int((rows["event_timestamp"] >= holdout.start).sum())
    if not judging or judging == len(rows):
        raise LabelsNotReady(
            f"of {len(examples):,} examples asked about in {window}, {len(rows) - judging:,} before the holdout and "
            f"{judging:,} in it have outcomes known in time, and both need some. Run again when outcomes have arrived, "
            "or change [train].holdout_days in the model's file."
        )
    if spec.data.auxiliary_label is not None:
        rows = rows.merge(read_auxiliary(data, spec, holdout.start), on="example_id", how="left")
    return _snapshot(data, spec, features, rows, window, holdout, as_of)


def load_training_set(training_set: TrainingSet) -> pd.DataFrame:
    """The rows of a snapshot; raises `DataError` when the file is gone or its content is not what the digest says."""
    path = Path(training_set.uri)
    if not path.is_file():
        raise DataError(f"training set {path} is gone; build it again as of {training_set.as_of.isoformat()}")
    rows = pd.read_parquet(path)
    if content_digest(rows) != training_set.digest:
        raise DataError(
            f"training set {path} was altered: its content is not {training_set.digest}; delete and rebuild it"
        )
    return rows


def content_digest(rows: pd.DataFrame) -> Digest:
    """Of names, kinds and values in order; blind to file encoding, and to which NaN a missing number is."""
    digest = hashlib.sha256()
    for name in rows.columns:
        column = rows[name]
        if pd.api.types.is_datetime64_any_dtype(column):
            kind, content = "time", column.dt.as_unit("us").astype("int64").to_numpy().tobytes()
        elif pd.api.types.is_numeric_dtype(column):
            numbers = column.to_numpy(dtype="float64", na_value=np.nan, copy=True)
            numbers[np.isnan(numbers)] = np.nan
            kind, content = "number", numbers.tobytes()
        else:
            texts = ["-" if value is None or value != value else f"{len(value)}:{value}" for value in column.tolist()]
            kind, content = "text", "".join(texts).encode()
        digest.update(f"{name}\0{kind}\0{len(column)}\0{len(content)}\0".encode() + content)
    return "sha256:" + digest.hexdigest()


def _snapshot(
    data: Path,
    spec: ModelSpec,
    features: Features,
    rows: pd.DataFrame,
    window: Window,
    holdout: Window,
    as_of: datetime,
) -> TrainingSet:
    service = spec.data.feature_service
    inputs = features.inputs(service, spec.data.entity_features)
    joined = features.historical(service, rows)
    told = ["label", "auxiliary"] if spec.data.auxiliary_label is not None else ["label"]
    columns = ["example_id", *_MOMENTS, *told, *(s for s in spec.data.slices if s not in inputs), *inputs]
    missing = [column for column in columns if column not in joined]
    if missing:
        raise DataError(f"columns {missing} are not in {spec.data.examples!r}; correct [data] in {spec.name}.toml")
    snapshot = joined[columns].sort_values(["event_timestamp", "example_id"], ignore_index=True)
    digest = content_digest(snapshot)
    path = data / "training_sets" / f"{digest.removeprefix('sha256:')}.parquet"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        snapshot.to_parquet(temporary, index=False, coerce_timestamps="us")
        temporary.replace(path)
    return TrainingSet(
        uri=str(path),
        digest=digest,
        model=spec.name,
        feature_service=service,
        as_of=as_of,
        window=window,
        holdout=holdout,
        rows=len(snapshot),
        holdout_rows=int((snapshot["event_timestamp"] >= holdout.start).sum()),
        features=inputs,
    )


def _read(
    data: Path,
    table: str,
    needed: list[str],
    query: str,
    parameters: dict[str, Any],
    until: datetime,
    since: datetime | None = None,
    frames: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Answer `query` over the partitions of `table`, named `rows`, of the UTC days up to that of `until`, and over `frames`.

    With `since`, of the days from that one on, or else of the newest day before there is one.
    """
    last = f"day={until.astimezone(UTC):%Y-%m-%d}.parquet"
    files = [str(path) for path in sorted((data / "features" / table).glob("day=*.parquet")) if path.name <= last]
    if since is not None:
        first = f"day={since.astimezone(UTC):%Y-%m-%d}.parquet"
        files = [path for path in files if Path(path).name >= first] or files[-1:]
    if not files:
        raise DataError(
            f"table {table!r} has no rows up to {until.isoformat()} under {data / 'features'}; build it up to there, "
            "or, if it is built, ask about a later moment: nothing was known by then"
        )
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE VIEW rows AS SELECT * FROM read_parquet({files})")
        for name, frame in (frames or {}).items():
            connection.register(name, frame)
        have = [name for name, *_ in connection.execute("DESCRIBE rows").fetchall()]
        missing = [name for name in needed if name not in have]
        if missing:
            raise DataError(
                f"table {table!r} has no column {missing}, it has {have}; correct [data] in the model's file"
            )
        return connection.execute(query, parameters).df()
