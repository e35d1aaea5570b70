"""Serving beside what a user would pick instead: `python -m bench.serving`.

The same model, the same flights, one row a request; a server (with all that it starts) has one core, and the load another,
which it shares with Redis. Evergreen with the features in the request and with Feast's online features on SQLite and on
Redis, beside MLflow's `models serve`, BentoML, Ray Serve and a bare FastAPI route that calls the model. Evergreen logs
every answer, the others log nothing. Each answer is first compared with the model's own. Closed loop with one connection
and with `CONNECTIONS`: the latter is its saturation, beside which stands the CPU time a row takes, which says the same of a
machine that others use too, and of it the first thread's: in a server of one process, the event loop's. Open loop at half
of it, once what was put off at saturation is done and after a warm-up at that pace. A way that does not run is named with
its reason. Prints a table and writes `reports/bench/serving.json`.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bench.serving.installation import Installation, installations
from bench.serving.limit import ceiling
from bench.serving.load import Measured, closed_loop, open_loop, request
from bench.serving.lookups import lookups
from bench.serving.report import Figures, report
from bench.serving.ways import WAYS, DoesNotRunError, Way, ask, served
from evergreen.settings import ROOT

CONNECTIONS = 32
LOADS = ("alone", "saturated", "half", "at")
COMPARED_ROWS = 20
TOLERANCE = 1e-5
"""Of a score: batches of another size round in another order."""


def main() -> None:
    """Measure each way in turn and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load; the warm-up has a third")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS), help="the others keep their figures")
    parser.add_argument(
        "--rates", nargs="+", type=int, default=[], help="questions a second, each asked in an open loop too"
    )
    parser.add_argument("--prepare", action="store_true", help="make what is measured, and measure nothing")
    arguments = parser.parse_args()
    home = arguments.home.absolute()
    made = installations(home)
    if arguments.prepare:
        return
    server_core, load_core = cores()
    os.sched_setaffinity(0, {load_core})
    kept = home / "serving" / "figures.json"
    figures: Figures = json.loads(kept.read_text()) if kept.is_file() else {}
    reasons: dict[str, str] = {}
    figures |= {name: value for one in made.values() for name, value in lookups(one).items()}
    figures["generator_ceiling_per_second"] = ceiling(server_core, arguments.seconds)
    with redis_on(load_core, made["redis"]):
        for name in arguments.only:
            way = WAYS[name]
            figures = {
                key: value
                for key, value in figures.items()
                if not key.startswith(tuple(f"{name}_{load}_" for load in LOADS))
            }
            try:
                found = measured(way, home, made[way.store], server_core, arguments.seconds, arguments.rates)
            except DoesNotRunError as error:
                reasons[name] = str(error)
            else:
                figures |= {f"{name}_{key}": value for key, value in found.items()}
                kept.write_text(json.dumps(figures))  # a bench that is stopped goes on with `--only`
    report(figures, reasons, CONNECTIONS)


def cores() -> tuple[int, int]:
    """The server's and the load's."""
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        raise SystemExit("this bench needs two cores: one for the server and one for the load")
    return found[0], found[1]


@contextmanager
def redis_on(core: int, installation: Installation) -> Iterator[None]:
    """Redis is no part of the server, but Linux likes to wake it where it is asked from; one that cannot be moved stays."""
    online: Any = installation.wiring.features._online
    process_id = int(online._client.info("server")["process_id"])
    cores: set[int] | None = None
    with suppress(psutil.Error, OSError):  # it runs on another machine, or is somebody else's
        if "redis" in psutil.Process(process_id).name():
            cores = os.sched_getaffinity(process_id)
            os.sched_setaffinity(process_id, {core})
    try:
        yield
    finally:
        if cores is not None:
            with suppress(OSError):
                os.sched_setaffinity(process_id, cores)


def measured(
    way: Way, home: Path, installation: Installation, core: int, seconds: float, rates: Sequence[int]
) -> Figures:
    """One way's figures."""
    rows = way.rows(installation)
    requests = [request(way.path, way.body(row)) for row in rows]
    with served(way, home, installation, core) as server:
        for row, score in zip(rows[:COMPARED_ROWS], installation.scores, strict=False):
            if abs((said := ask(way, server.port, row)) - score) > TOLERANCE:
                raise DoesNotRunError(f"it says {said} where the model says {score}")
        closed_loop(server.port, requests, CONNECTIONS, seconds / 3)  # warm
        alone = closed_loop(server.port, requests, 1, seconds / 2)
        before, loop_before = server.cpu_seconds(), server.loop_seconds()
        full = closed_loop(server.port, requests, CONNECTIONS, seconds)
        cpu_seconds, loop_seconds = server.cpu_seconds() - before, server.loop_seconds() - loop_before
        server.rest()
        open_loop(server.port, requests, full.per_second / 2, seconds / 3)
        half = open_loop(server.port, requests, full.per_second / 2, 2 * seconds)
        paced: Figures = {}
        for rate in rates:
            server.rest()
            before = server.cpu_seconds()
            paced |= told(f"at_{rate}", open_loop(server.port, requests, rate, seconds))
            paced[f"at_{rate}_busy"] = (server.cpu_seconds() - before) / seconds
    return {
        **told("alone", alone),
        **told("saturated", full),
        "saturated_cpu_ms": 1000 * cpu_seconds / max(full.answered, 1),
        "saturated_loop_cpu_ms": 1000 * loop_seconds / max(full.answered, 1),
        **told("half", half),
        "half_asked_per_second": full.per_second / 2,
        **paced,
    }


def told(name: str, one: Measured) -> Figures:
    """One load's figures; no latencies where nothing was answered."""
    figures = {
        f"{name}_per_second": one.per_second,
        f"{name}_answered": float(one.answered),
        f"{name}_failed": float(one.failed),
    }
    if one.answered:
        figures |= {f"{name}_p50_ms": one.quantile_ms(0.5), f"{name}_p99_ms": one.quantile_ms(0.99)}
    return figures


if __name__ == "__main__":
    main()
