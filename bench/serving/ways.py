"""The ways of serving that are measured: how each is started, what it is asked, and where its answer has the score.

A server and all that it starts have one core. To add a way, add it to `WAYS`.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from bench.serving.installation import MODEL, Installation, Row, Store, dumped
from bench.serving.peers import python_of
from evergreen.settings import ROOT

START_SECONDS = 120
REST_SECONDS = 60
LOOK_SECONDS = 1.0
IDLE_SHARE = 0.05
"""Of a core: who takes less rests."""
FEASTS_OWN = ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR")
"""Feast sets them where it is imported, here too; a server that inherits them counts in files, at twice the price."""


class DoesNotRunError(Exception):
    """A way cannot be measured here; says why."""


@dataclass(frozen=True)
class Way:
    """One way to serve the model."""

    title: str
    path: str
    body: Callable[[Row], bytes]
    score: Callable[[Any], float]
    """Of an answer."""
    command: Callable[[Path, Installation, int], Sequence[str | Path]]
    """From the bench's folder, the installation and the port."""
    store: Store = "sqlite"
    looks_up: bool = False
    """Asked with keys; else with the model's inputs."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def rows(self, installation: Installation) -> list[Row]:
        """What it is asked about."""
        return installation.keys if self.looks_up else installation.inputs


def _python(*arguments: str) -> Callable[[Path, Installation, int], Sequence[str | Path]]:
    return lambda _home, _installation, _port: [sys.executable, *arguments]


def _peer(name: str, *arguments: str) -> Callable[[Path, Installation, int], Sequence[str | Path]]:
    def command(home: Path, _: Installation, port: int) -> Sequence[str | Path]:
        try:
            return [python_of(name, home), *(one.format(port=port) for one in arguments)]
        except subprocess.CalledProcessError as error:
            raise DoesNotRunError(f"its environment cannot be made: {error}") from error

    return command


def _mlflow(_: Path, installation: Installation, port: int) -> Sequence[str | Path]:
    source = f"models:/{MODEL}/1"
    del installation
    options = ["--env-manager", "local", "--workers", "1", "--port", str(port), "--model-uri", source]
    return [sys.executable, "-m", "mlflow", "models", "serve", *options]


def _split(row: Row) -> bytes:
    return dumped({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}})


def _answered(answer: Any) -> float:
    return float(answer["predictions"][0]["score"])


def _rows(row: Row) -> bytes:
    return dumped({"rows": [row]})


PREDICT = f"/predict/{MODEL}"
_evergreen = partial(Way, path=PREDICT, score=_answered, command=_python("-m", "serving"))
WAYS: Mapping[str, Way] = {
    "evergreen_given": _evergreen(
        "Evergreen, features given", body=lambda row: dumped({"rows": row, "features": "given"})
    ),
    "evergreen_sqlite": _evergreen("Evergreen, Feast on SQLite", body=lambda row: dumped({"rows": row}), looks_up=True),
    "evergreen_redis": _evergreen(
        "Evergreen, Feast on Redis", body=lambda row: dumped({"rows": row}), looks_up=True, store="redis"
    ),
    "evergreen_redis_cached": _evergreen(
        "Evergreen, Feast on Redis, features kept 1 s",
        body=lambda row: dumped({"rows": row}),
        looks_up=True,
        store="redis",
        environment={"EVERGREEN_MODELS_DIR": str(ROOT / "models")},
    ),
    "bare_fastapi": Way(
        "bare FastAPI route",
        "/predict",
        _rows,
        lambda answer: float(answer["scores"][0]),
        _python("-m", "bench.serving.bare"),
    ),
    "mlflow": Way(
        "MLflow models serve",
        "/invocations",
        _split,
        lambda answer: float(answer["predictions"][0]),
        _mlflow,
    ),
    "bentoml": Way(
        "BentoML",
        "/predict",
        _rows,
        lambda answer: float(answer[0]),
        _peer("bentoml", "-m", "bentoml", "serve", "bench.serving.bento:Flights", "--port", "{port}"),
        environment={"BENTOML_DO_NOT_TRACK": "true"},
    ),
    "ray_serve": Way(
        "Ray Serve",
        "/predict",
        _rows,
        lambda answer: float(answer[0]),
        _peer("ray", "-m", "bench.serving.ray_serve"),
        environment={"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
    ),
}


@dataclass(frozen=True)
class Server:
    """A way that runs."""

    port: int
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of all its living processes so far."""
        seconds = 0.0
        for one in [self.process, *self.process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                used = one.cpu_times()
                seconds += used.user + used.system
        return seconds

    def loop_seconds(self) -> float:
        """CPU time of the first process's first thread so far: in a server of one process, the event loop's."""
        return next(one.user_time + one.system_time for one in self.process.threads() if one.id == self.process.pid)

    def rest(self) -> None:
        """Wait until it does nothing any more: a log, say, may be written after its answers were given."""
        deadline = time.monotonic() + REST_SECONDS
        before, now = 0.0, self.cpu_seconds()
        while now - before > IDLE_SHARE * LOOK_SECONDS and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            before, now = now, self.cpu_seconds()


@contextmanager
def served(way: Way, home: Path, installation: Installation, core: int) -> Iterator[Server]:
    """The way on one core, answering; all of it ends with the block. Raises `DoesNotRunError`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    log = home / "serving" / f"{way.title}.log"
    environment = {
        **{name: value for name, value in os.environ.items() if name not in FEASTS_OWN},
        **installation.variables,
        "EVERGREEN_SERVING_PORT": str(port),
        "BENCH_PORT": str(port),
        "BENCH_ARTIFACT": str(installation.artifact),
        "MLFLOW_TRACKING_URI": installation.wiring.settings.tracking_uri,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # MLflow starts uvicorn by its name
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "ignore",
        **way.environment,
    }
    command = way.command(home, installation, port)
    with log.open("wb") as told:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=told, stderr=told, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
        try:
            _await_answer(way, port, process, way.rows(installation)[0], log)
            yield Server(port, psutil.Process(process.pid))
        finally:
            _end(process)


def ask(way: Way, port: int, row: Row) -> float:
    """The score of one row."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{way.path}", way.body(row), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return way.score(json.load(answer))


def _await_answer(way: Way, port: int, process: "subprocess.Popen[bytes]", row: Row, log: Path) -> None:
    deadline, last = time.monotonic() + START_SECONDS, ""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DoesNotRunError(f"it ended with status {process.returncode}: {_tail(log)}")
        try:
            ask(way, port, row)
            return
        except (OSError, urllib.error.URLError) as error:
            last = str(error)
        time.sleep(0.2)
    raise DoesNotRunError(f"no answer in {START_SECONDS} s ({last}): {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-400:]


def _end(process: "subprocess.Popen[bytes]") -> None:
    started: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
    process.wait()
    for one in started:  # Ray's have sessions of their own
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
