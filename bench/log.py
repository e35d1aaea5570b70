"""What the prediction log's process takes a row, beside SQLite alone: `python -m bench.log`.

CPU of `serving.carrier.stored`, from the spool's records to a commit, by rows a batch, in a table that holds `HELD_ROWS`;
then of the very same rows, as SQLite gives them back, through one prepared statement of Python's `sqlite3` into another
such table: the least that is to be paid. Twice, with ids in the order of time, as they are, and with random ones, by which
each index is written all over. Medians of `ROUNDS`. Prints a table and writes `reports/bench/log.json`.
"""

import gc
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from bench.record import record
from evergreen.settings import ROOT, Settings
from evergreen.types import Prediction
from evergreen.wiring import Wiring
from serving.carrier import stored
from serving.ids import new_example_id, prediction_id

HELD_ROWS = 40_000
FEATURES = 50
BATCHES = (10, 50, 100, 1_000)
ROUNDS = 30
NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)


def main() -> None:
    """Measure in turns and report."""
    figures: dict[str, float] = {}
    table = Table("ids", "rows a batch", "the log's process, µs a row", "SQLite alone", "times")
    for ids in ("in order", "random"):
        with tempfile.TemporaryDirectory() as folder:
            found = measured(Path(folder), ids == "in order")
        for rows, (ours, least) in found.items():
            table.add_row(ids, f"{rows:,}", f"{ours:.0f}", f"{least:.0f}", f"{ours / least:.1f}")
            name = f"{ids.replace(' ', '_')}_{rows}"
            figures |= {f"{name}_log_us": ours, f"{name}_sqlite_us": least}
    Console().print(table)
    Console().print(f"written to {record('log', figures, ('sqlalchemy', 'orjson', 'uuid6')).relative_to(ROOT)}")


def measured(folder: Path, in_order: bool) -> dict[int, tuple[float, float]]:
    """Microseconds of CPU a row, ours and the least, by rows a batch."""
    ours, other = Wiring(Settings(home=folder / "ours")), Wiring(Settings(home=folder / "other"))
    for one in (ours, other):
        for _ in range(HELD_ROWS // 1_000):
            stored(one, answers(1_000, in_order))
    gc.collect()
    gc.freeze()  # as the log's process does
    found: dict[int, tuple[float, float]] = {}
    with (
        closing(sqlite3.connect(str(ours.engine.url.database))) as reader,
        closing(sqlite3.connect(str(other.engine.url.database))) as writer,
    ):
        writer.execute("PRAGMA synchronous = NORMAL")
        for rows in BATCHES:
            spent: list[tuple[float, float]] = []
            for _ in range(ROUNDS):
                batch = answers(rows, in_order)
                by_us = cpu_us(partial(stored, ours, batch))
                same = reader.execute("SELECT * FROM predictions ORDER BY rowid DESC LIMIT ?", [rows]).fetchall()
                spent.append((by_us / rows, cpu_us(partial(insert, writer, same[::-1])) / rows))
            found[rows] = (statistics.median(one for one, _ in spent), statistics.median(least for _, least in spent))
    return found


def answers(count: int, in_order: bool) -> list[bytes]:
    """As the spool has them."""
    made: list[bytes] = []
    for _ in range(count):
        example = new_example_id() if in_order else str(uuid4())
        prediction = Prediction(
            prediction_id=prediction_id("flight_delay", example, NOON, 1) if in_order else str(uuid4()),
            model="flight_delay",
            version=1,
            role="champion",
            example_id=example,
            event_timestamp=NOON,
            answered_at=datetime.now(UTC),
            score=random.random(),
            features={f"carrier_late_rate_{number}d": random.random() for number in range(FEATURES)},
            latency_ms=1.5,
        )
        made.append(prediction.model_dump_json().encode())
    return made


def insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """In one transaction."""
    places = ", ".join("?" * len(rows[0]))
    with connection:
        connection.executemany(f"INSERT INTO predictions VALUES ({places}) ON CONFLICT DO NOTHING", rows)


def cpu_us(work: Callable[[], Any]) -> float:
    """Of this process."""
    before = time.process_time_ns()
    work()
    return (time.process_time_ns() - before) / 1_000


if __name__ == "__main__":
    main()
