"""Files partitioned by day: `<folder>/day=YYYY-MM-DD.parquet`.

One file a day, written to a temporary name and renamed, so a reader sees a whole day or none, and doing a day again
replaces it. Knows nothing of flights. Called by `pipeline.py`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROW_GROUP = 20_000  # rows; small enough that reading one day of a large sorted file skips the rest
UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")


def midnight(moment: datetime | date) -> datetime:
    """The start of the UTC day `moment` is in."""
    day = moment.astimezone(UTC).date() if isinstance(moment, datetime) else moment
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def partition(folder: Path, day: date) -> Path:
    """Where one day's rows are."""
    return folder / f"day={day.isoformat()}.parquet"


def partitions(folder: Path, first: datetime | None = None, last: datetime | None = None) -> list[Path]:
    """The files there are, oldest first, of the days from `first` to `last`."""
    low = f"day={midnight(first).date().isoformat()}.parquet" if first else ""
    high = f"day={midnight(last).date().isoformat()}.parquet" if last else "day=~"
    return [path for path in sorted(folder.glob("day=*.parquet")) if low <= path.name <= high]


def write_partitions(folder: Path, rows: pa.Table, timestamp: str | pa.Array, days: list[date]) -> int:
    """Replace the partitions of `days` by `rows`, which are sorted by their column `timestamp` and lie in those days.

    Rows whose own column cannot be trusted bring their moments as an array instead.
    A day without rows has no file afterwards. Returns the number of files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    column = rows.column(timestamp) if isinstance(timestamp, str) else timestamp
    moments = column.cast(UTC_MICROSECONDS, safe=False).cast(pa.int64()).to_numpy()
    written = 0
    for day in days:
        start = int(midnight(day).timestamp()) * 1_000_000
        low, high = (int(n) for n in moments.searchsorted([start, start + 86_400_000_000]))
        path = partition(folder, day)
        if low == high:
            path.unlink(missing_ok=True)
            continue
        write_atomically(path, rows.slice(low, high - low))
        written += 1
    return written


def write_atomically(path: Path, content: pa.Table | str) -> None:
    """Write a table (Parquet) or a text under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    if isinstance(content, str):
        temporary.write_text(content)
    else:
        pq.write_table(content, temporary, compression="zstd", row_group_size=_ROW_GROUP)
    temporary.replace(path)


def in_utc(rows: pa.Table) -> pa.Table:
    """`rows` with every timestamp column in UTC microseconds; those without a zone are taken as UTC."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type != UTC_MICROSECONDS:
            column = rows.column(index)
            exact = column.cast(pa.timestamp("us", tz=field.type.tz), safe=False)
            aware = exact.cast(UTC_MICROSECONDS) if field.type.tz else pc.assume_timezone(exact, "UTC")
            rows = rows.set_column(index, field.name, aware)
    return rows


@contextmanager
def only_one(folder: Path, work: str) -> Iterator[None]:
    """Hold `folder` for `work`: a second process that wants the same waits."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{work}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
