"""What looking a flight's features up costs beside the raw multi-get under it, in CPU time of the process that asks.

The whole path is `Features.online`: keys encoded, read, decoded, freshness judged, on-demand features computed. The raw
multi-get asks the same store for the same values of keys that are encoded already, as one would write it with the store's
client, a statement a view of SQLite and a pipeline of Redis, and leaves the bytes as they come.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from bench.serving.installation import MOMENT, Installation, Row
from evergreen.adapters.online.redis import redis_fields

ROUNDS, CALLS = 25, 200
COLUMNS = "entity_key, feature_name, value, event_ts"
BATCHES = (1, 100)


def lookups(installation: Installation) -> dict[str, float]:
    """CPU milliseconds a call by size of the batch, ours and raw, and their ratio."""
    settings, features = installation.wiring.settings, installation.wiring.features
    service = installation.wiring.spec("flight_delay").data.feature_service
    figures: dict[str, float] = {}
    for size in BATCHES:
        batches = [installation.keys[start : start + size] for start in range(0, len(installation.keys) - size, size)]
        asked = [{name: [row[name] for row in batch] for name in batch[0]} for batch in batches]
        raw = _redis(installation, batches) if settings.online_store == "redis" else _sqlite(installation, batches)
        ours = [lambda rows=rows: features.online(service, rows, MOMENT) for rows in asked]
        name = f"lookup_{settings.online_store}_{size}"
        times = {"ours": float("inf"), "raw": float("inf")}
        for _ in range(ROUNDS):  # alternately, the best of each
            for side, calls in (("ours", ours), ("raw", raw)):
                times[side] = min(times[side], _cpu_ms(calls, max(CALLS // size, 10)))
        figures |= {f"{name}_{side}_cpu_ms": value for side, value in times.items()}
        figures[f"{name}_over_raw"] = times["ours"] / times["raw"]
    return figures


def _cpu_ms(calls: Sequence[Callable[[], Any]], count: int) -> float:
    calls[0]()
    begun = time.thread_time()
    for number in range(count):
        calls[number % len(calls)]()
    return 1000 * (time.thread_time() - begun) / count


def _keys(installation: Installation, batch: Sequence[Row]) -> list[tuple[Any, list[bytes]]]:
    plan = installation.wiring.features._plan(installation.wiring.spec("flight_delay").data.feature_service)
    return [
        (view, list(dict.fromkeys(view.encoded(tuple(row[key] for key in view.keys)) for row in batch)))
        for view in plan.stored
    ]


def _redis(installation: Installation, batches: Sequence[Sequence[Row]]) -> list[Callable[[], Any]]:
    read: Any = installation.wiring.features._online
    calls: list[Callable[[], Any]] = []
    for batch in batches:
        commands: dict[bytes, list[bytes]] = {}
        for view, keys in _keys(installation, batch):
            for key in keys:
                commands.setdefault(key + read._project, []).extend(redis_fields(view))

        def ask(commands: dict[bytes, list[bytes]] = commands) -> Any:
            with read._client.pipeline(transaction=False) as pipe:
                for key, fields in commands.items():
                    pipe.execute_command("HMGET", key, *fields)
                return pipe.execute()

        calls.append(ask)
    return calls


def _sqlite(installation: Installation, batches: Sequence[Sequence[Row]]) -> list[Callable[[], Any]]:
    database = sqlite3.connect(installation.wiring.settings.home / "online.db")
    calls: list[Callable[[], Any]] = []
    for batch in batches:
        statements = [
            (f'SELECT {COLUMNS} FROM "evergreen_{view.name}" WHERE entity_key IN ({",".join("?" * len(keys))})', keys)
            for view, keys in _keys(installation, batch)
        ]

        def ask(statements: list[tuple[str, list[bytes]]] = statements) -> Any:
            return [database.execute(text, keys).fetchall() for text, keys in statements]

        calls.append(ask)
    return calls
