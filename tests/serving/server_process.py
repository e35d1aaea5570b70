"""A serving process of its own, load on it, and a database that can be taken away from it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Self

import httpx
import psutil
import uvicorn
from fastapi import FastAPI

from evergreen.release import start
from evergreen.settings import ROOT
from evergreen.types import Release
from evergreen.wiring import Wiring
from tests.processes import workers_of
from tests.serving.serving_factories import NOON, a_flight, eventually


@dataclass
class Server:
    """`python -m serving` and a client of it."""

    process: "subprocess.Popen[bytes]"
    client: httpx.Client

    @property
    def resident_bytes(self) -> int:
        """Memory of the process and its workers."""
        root = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in [root, *root.children(recursive=True)])

    @property
    def workers(self) -> list[psutil.Process]:
        """The processes that answer."""
        return workers_of(self.process.pid)

    def kill(self) -> None:
        """At once, its workers too: nobody is told."""
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.process.kill()
        self.process.wait()


@contextmanager
def a_server(home: Wiring, **variables: str) -> Iterator[Server]:
    """Serve an installation; `variables` are added to the environment. Killed at the end if it still runs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = home.settings
    environment: Mapping[str, str] = {
        **os.environ,
        "EVERGREEN_HOME": str(settings.home),
        "EVERGREEN_MODELS_DIR": str(settings.models_dir),
        "EVERGREEN_SERVING_PORT": str(port),
        "EVERGREEN_SERVING_POLL_SECONDS": "0.1",
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    process = subprocess.Popen([sys.executable, "-m", "serving"], env=environment, cwd=ROOT)
    server = Server(process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
    try:
        deadline = time.monotonic() + 90
        while True:
            with contextlib.suppress(httpx.TransportError):
                if server.client.get("/ready").status_code == 200:
                    break
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < deadline, "it never became ready"
            time.sleep(0.1)
        yield server
    finally:
        server.client.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        if process.poll() is None:
            server.kill()


@contextmanager
def served(app: FastAPI) -> Iterator[httpx.Client]:
    """The app behind a real socket, and a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started or not thread.is_alive(), seconds=60)
            assert server.started
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(30)


@dataclass
class Load:
    """Clients that ask without pause, and what they were answered."""

    base_url: str
    name: str
    threads: int = 3
    answered: list[str] = field(default_factory=list)
    """Prediction ids."""
    failures: list[str] = field(default_factory=list)
    _stop: Event = field(default_factory=Event)

    def __enter__(self) -> Self:
        self._running = [Thread(target=self._ask, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join(60)

    def _ask(self, thread: int) -> None:
        number = 0
        with httpx.Client(base_url=self.base_url, timeout=120) as client:
            while not self._stop.is_set():
                number += 1
                row = a_flight(number, example_id=f"{self.name}-{thread}-{number}")
                try:
                    answer = client.post("/predict/flight_delay", json={"rows": row, "as_of": NOON.isoformat()})
                except httpx.TransportError as error:
                    self.failures.append(repr(error))
                    continue
                if answer.status_code == 200:
                    self.answered.append(answer.json()["predictions"][0]["prediction_id"])
                else:
                    self.failures.append(f"{answer.status_code} {answer.text}")


class Link:
    """A connection to a server that can be cut and mended: a relay on a port of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = Lock()
        self._open: list[socket.socket] = []
        self._whole = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepting = Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        """End every connection and refuse new ones."""
        with self._lock:
            self._whole = False
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def mend(self) -> None:
        """Let connections through again."""
        self._whole = True

    def close(self) -> None:
        """End for good."""
        self.cut()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._whole:
                    near.close()
                    continue
                far = socket.create_connection(self._target)
                self._open += [near, far]
            for one, other in ((near, far), (far, near)):
                Thread(target=_relay, args=(one, other), daemon=True).start()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65_536):
            sink.sendall(content)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    source.close()  # the thread of the other direction closes the sink


def released(wiring: Wiring, champion: int, model: str = "flight_delay") -> Release:
    """Make a version the champion in the tables `wiring` has."""
    with wiring.records() as records:
        before = records.releases.current(model)
        expected = before.revision if before else None
        after = Release(model=model, revision=(expected or 0) + 1, champion=champion, changed_at=NOON)
        return records.releases.save(
            after, expected_revision=expected, action="test", actor="a test", reason="to see", at=NOON
        )


def promoted(wiring: Wiring, version: int, model: str = "flight_delay") -> Release:
    """Give a version all of the traffic, as a release does: the champion before it is the previous one."""

    def decide(current: Release | None) -> Release:
        if current is not None and (current.champion, current.challenger) == (version, None):
            return current
        return start(current, model=model, version=version, share=1.0, at=NOON)

    with wiring.records() as records:
        return records.releases.change(model, decide, action="start", actor="a test", reason="")
