"""What the feature store costs beside the machinery under it: `python -m bench.features`.

On all flights of 2013 (made once, in a folder that is kept): the point-in-time join through Feast and our ASOF store
beside a hand-written DuckDB query over the same files; its memory as the TTL grows; materialization; an online read
beside a bare SQLite query. Every measurement is a process of its own with one thread, the best of its repetitions
counts, and the order of the two sides alternates. Prints a table and writes `reports/bench/features.json`.
"""

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.memory import peak_mib
from bench.record import record
from evergreen.settings import ROOT, Settings
from evergreen.spec import load_spec
from evergreen.types import Window

END = datetime(2014, 1, 3, tzinfo=UTC)
SERVICE = "flight_delay"
TTLS = {"1h": timedelta(hours=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
Figures = dict[str, float]


def main() -> None:
    """Run every measurement in a process of its own and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=sorted(MEASUREMENTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = Settings(home=arguments.home)
    if arguments.only:
        print(json.dumps(MEASUREMENTS[arguments.only](settings, arguments.repeat)))
        return
    figures: Figures = {}
    for name in MEASUREMENTS:
        command = [sys.executable, "-W", "ignore", "-m", "bench.features", "--only", name, "--home", str(settings.home)]
        done = subprocess.run(
            [*command, "--repeat", str(arguments.repeat)], check=True, capture_output=True, text=True, cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        figures |= json.loads(done.stdout.splitlines()[-1])
    for ttl in TTLS:
        figures[f"join_added_mib_ttl_{ttl}"] = figures.pop(f"join_peak_mib_ttl_{ttl}") - figures["join_idle_mib"]
    report(figures)


def report(figures: Figures) -> None:
    """Print the figures and write them with what they were measured on."""
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    path = record("features", figures, ("feast", "duckdb", "pandas", "pyarrow"))
    Console().print(f"written to {path.relative_to(ROOT)}")


def tables(settings: Settings, repeat: int) -> Figures:
    """Make the year's tables in one pass, then time a usual day; a folder that has them keeps them."""
    from feature_repo.flights import pipeline

    figures: Figures = {}
    if not (settings.data / "state" / "flights-built.json").is_file():
        pipeline.ingest(settings.data, datetime(2013, 11, 1, 6, tzinfo=UTC))
        pipeline.build(settings.data, datetime(2013, 11, 1, 6, tzinfo=UTC))
        for n in range(1, 1 + repeat):
            moment = datetime(2013, 11, 1, 6, tzinfo=UTC) + timedelta(days=n)
            step = {
                "ingest_day_seconds": timed(partial(pipeline.ingest, settings.data, moment)),
                "build_day_seconds": timed(partial(pipeline.build, settings.data, moment)),
            }
            figures = {name: min(value, figures.get(name, value)) for name, value in step.items()}
        pipeline.ingest(settings.data, END)
        pipeline.build(settings.data, END)
        (settings.data / "day.json").write_text(json.dumps(figures))
    days: Figures = json.loads((settings.data / "day.json").read_text())
    return days


def timed(work: Callable[[], object]) -> float:
    """CPU seconds of this process; wall time says more of the neighbours."""
    start = time.process_time()
    work()
    return time.process_time() - start


def asked(settings: Settings) -> pd.DataFrame:
    """All flights of the year at their moments of asking."""
    from evergreen.adapters.feature_tables import read_examples

    spec = load_spec(settings.models_dir / "flight_delay.toml")
    year = Window(start=datetime(2012, 12, 31, tzinfo=UTC), end=END)
    columns = ["example_id", "origin", "dest", "carrier", "tailnum", "event_timestamp"]
    return read_examples(settings.data, spec, year, END)[columns]


def join(settings: Settings, repeat: int) -> Figures:
    """Every row and stored feature: ours through Feast, and the query one would write by hand."""
    from evergreen.adapters.feast import Features

    rows = asked(settings)
    features = Features(settings)
    features.apply()
    store = features._store
    stored = {view.name: view for view in store.list_feature_views()}
    refs = [f"{view.name}:{field.name}" for view in stored.values() for field in view.features]
    query = by_hand(
        settings, [(v.name, list(v.join_keys), [f.name for f in v.features], v.ttl) for v in stored.values()]
    )

    def raw() -> Any:
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("asked", rows)
            return connection.sql(query).to_arrow_table()

    def ours() -> Any:
        return store.get_historical_features(rows, refs).to_arrow()

    left = raw().to_pandas().sort_values("example_id", ignore_index=True)
    right = ours().to_pandas().sort_values("example_id", ignore_index=True)
    pd.testing.assert_frame_equal(left[list(right.columns)], right, check_dtype=False)
    ours_seconds, raw_seconds = [], []
    for _ in range(repeat):
        ours_seconds.append(timed(ours))
        raw_seconds.append(timed(raw))
    return {
        "join_rows": float(len(rows)),
        "join_features": float(len(refs)),
        "join_ours_cpu_seconds": min(ours_seconds),
        "join_raw_duckdb_cpu_seconds": min(raw_seconds),
        "join_ours_over_raw": min(ours_seconds) / min(raw_seconds),
    }


def by_hand(settings: Settings, views: list[tuple[str, list[str], list[str], timedelta]]) -> str:
    """One query: an ASOF LEFT JOIN a view, the TTL looked at afterwards."""
    columns, joins = ["asked.*"], []
    for name, keys, features, ttl in views:
        fresh = f"{name}.event_timestamp >= asked.event_timestamp - INTERVAL {int(ttl.total_seconds())} SECONDS"
        columns += [f"CASE WHEN {fresh} THEN {name}.{feature} END AS {feature}" for feature in features]
        same = " AND ".join(f"{name}.{key} = asked.{key}" for key in keys)
        files = settings.data / "features" / name / "*.parquet"
        joins.append(
            f"ASOF LEFT JOIN (SELECT * FROM read_parquet('{files}')) AS {name} "
            f"ON {same} AND {name}.event_timestamp <= asked.event_timestamp"
        )
    return f"SELECT {', '.join(columns)} FROM asked {' '.join(joins)}"


def memory(ttl: timedelta | None) -> Callable[[Settings, int], Figures]:
    """Peak memory of a process that joins every row with one TTL for all views; without one, of one that does not join."""

    def measure(settings: Settings, repeat: int) -> Figures:  # noqa: ARG001 - the peak is of one join
        from feast import FeatureStore, FeatureView

        from evergreen.adapters.feast import Features

        rows = asked(settings)
        features = Features(settings)
        store: FeatureStore = features._store
        views: list[FeatureView] = store.list_feature_views()
        refs = [f"{view.name}:{field.name}" for view in views for field in view.features]
        if ttl is not None:
            from evergreen.adapters.asof_store import AsofOfflineStore

            for view in views:
                view.ttl = ttl
            AsofOfflineStore.get_historical_features(store.config, views, refs, rows, store.registry, store.project)
        name = next((name for name, value in TTLS.items() if value == ttl), None)
        return {f"join_peak_mib_ttl_{name}" if name else "join_idle_mib": peak_mib()}

    return measure


def online(settings: Settings, repeat: int) -> Figures:
    """Materialize into SQLite, then read one row and a hundred: through Feast with freshness, and the bare rows."""
    from evergreen.adapters.feast import Features

    for path in (settings.home / "online.db", settings.home / "feast_registry.db"):
        path.unlink(missing_ok=True)
    features = Features(settings)
    features.apply()
    moment = datetime(2013, 11, 20, 15, tzinfo=UTC)
    first = timed(lambda: features.materialize("flights", moment))
    database = sqlite3.connect(settings.home / "online.db")
    names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    written = sum(database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names)
    daily = min(
        timed(partial(features.materialize, "flights", moment + timedelta(days=n))) for n in range(1, 1 + repeat)
    )
    figures = {
        "materialize_first_values": float(written),
        "materialize_first_cpu_seconds": first,
        "materialize_first_values_per_second": written / first,
        "materialize_day_cpu_seconds": daily,
    }
    moment += timedelta(days=repeat)
    spec = load_spec(settings.models_dir / "flight_delay.toml")
    from evergreen.adapters.feature_tables import read_examples

    examples = read_examples(settings.data, spec, Window(start=moment, end=moment + timedelta(hours=9)), END)
    for count in (1, 100):
        rows = {name: examples[name].head(count).to_list() for name in features.needs(SERVICE)}
        rows = {
            n: [v.to_pydatetime() if isinstance(v, pd.Timestamp) else v for v in values] for n, values in rows.items()
        }
        ours = per_call(partial(features.online, SERVICE, rows, moment), repeat)
        raw = per_call(multi_get(database, names, count), repeat)
        figures |= {f"online_{count}_ours_cpu_ms": ours, f"online_{count}_raw_sqlite_cpu_ms": raw}
    return figures


def multi_get(database: sqlite3.Connection, names: list[str], count: int) -> Callable[[], None]:
    """Reads the stored bytes of `count` keys of every view, undecoded."""
    keys = {
        name: [key for (key,) in database.execute(f'SELECT DISTINCT entity_key FROM "{name}" LIMIT ?', [count])]
        for name in names
    }

    def read() -> None:
        for name in names:
            marks = ",".join("?" * len(keys[name]))
            database.execute(f'SELECT * FROM "{name}" WHERE entity_key IN ({marks})', keys[name]).fetchall()

    return read


def per_call(work: Callable[[], object], repeat: int) -> float:
    """CPU milliseconds a call: the best of `repeat` runs of 20."""
    work()
    return min(timed(lambda: [work() for _ in range(20)]) for _ in range(repeat)) / 20 * 1000


MEASUREMENTS: dict[str, Callable[[Settings, int], Figures]] = {
    "tables": tables,
    "join": join,
    "idle": memory(None),
    **{f"ttl_{name}": memory(ttl) for name, ttl in TTLS.items()},
    "online": online,
}

if __name__ == "__main__":
    main()
