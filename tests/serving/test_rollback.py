"""The way back over HTTP and on the command line, as every worker of two servers sees it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import httpx
import psutil
import pytest

from evergreen.settings import ROOT
from evergreen.wiring import Wiring
from serving.app import create_app
from serving.keys import ApiKeys
from stack.environment import QUIET
from stack.ports import free_port
from tests.processes import workers_of
from tests.serving.conftest import installation
from tests.serving.server_process import promoted
from tests.serving.server_process import served as serving_here
from tests.serving.serving_factories import eventually

MODEL = "flight_delay"
EFFECTIVE_SECONDS = 2.0


def environment(wire: Wiring, port: int = 0, workers: int = 1) -> dict[str, str]:
    return os.environ | QUIET | {
        "EVERGREEN_HOME": str(wire.settings.home),
        "EVERGREEN_MODELS_DIR": str(wire.settings.models_dir),
        "EVERGREEN_SERVING_PORT": str(port),
        "EVERGREEN_SERVING_WORKERS": str(workers),
    }  # fmt: skip


@contextmanager
def serving(wire: Wiring, workers: int) -> Iterator[list[httpx.Client]]:
    """A server of its own, at the default poll interval; a client of each process that answers."""
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=ROOT, env=environment(wire, port, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with ExitStack() as clients:
            yield each_worker(port, process.pid, workers, clients)
    finally:
        process.terminate()
        process.wait(60)


def each_worker(port: int, server: int, workers: int, clients: ExitStack) -> list[httpx.Client]:
    """A connection stays with the worker that accepted it, so each is asked once while the others are held."""
    root, found = psutil.Process(server), dict[int, httpx.Client]()
    deadline = time.monotonic() + 150
    while len(found) < workers:
        assert time.monotonic() < deadline, f"{len(found)} of {workers} workers answer"
        answering = workers_of(server) if workers > 1 else [root]
        for worker in answering if len(answering) == workers else []:
            if worker.pid in found:
                continue
            client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=3.0)
            others = [one for one in answering if one != worker]
            for one in others:
                one.suspend()
            try:
                client.get("/ready").raise_for_status()
                clients.callback(client.close)
                found[worker.pid] = client
            except httpx.HTTPError:  # it is not up yet
                client.close()
            finally:
                for one in others:
                    one.resume()
        time.sleep(0.5)
    for client in found.values():
        client.timeout = 30.0
    return list(found.values())


def served(client: httpx.Client) -> int | None:
    try:
        (shown,) = (one for one in client.get("/models").json() if one["model"] == MODEL)
    except (httpx.HTTPError, ValueError):
        return None
    return shown["serving"]["champion"] if shown["serving"] else None


def seconds_until(clients: list[httpx.Client], champion: int, limit: float = 60.0) -> float:
    begun = time.monotonic()
    while [served(client) for client in clients] != [champion] * len(clients):
        assert time.monotonic() - begun < limit
        time.sleep(0.02)
    return time.monotonic() - begun


def journal(wire: Wiring) -> list[tuple[str, str, str]]:
    with wire.records() as records:
        return [(entry.action, entry.actor, entry.reason) for entry in records.releases.journal(MODEL)]


@pytest.fixture
def admin(installation: Wiring) -> Iterator[dict[str, str]]:
    """Headers of who may take a release back."""
    keys = installation.settings.keys_file
    yield {"Authorization": f"Bearer {ApiKeys(keys).make('night-shift', ['admin'])}"}
    keys.unlink()


def a_silent_server() -> socket.socket:
    """Takes connections, and never answers one."""
    return socket.create_server(("127.0.0.1", 0))


def address_of(server: socket.socket) -> str:
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_rollback_over_http_is_answered_while_mlflow_is_silent(
    installation: Wiring, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(installation, 1)
    promoted(installation, 2)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # while it starts
    with closing(a_silent_server()) as mlflow:
        app = create_app(installation.settings.model_copy(update={"mlflow_tracking_uri": address_of(mlflow)}))
        with serving_here(app) as client:
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
            answer = client.post(f"/models/{MODEL}/rollback", headers=admin, timeout=30)  # half of what MLflow is given
            mlflow.close()  # ends what waits for it

    assert (answer.status_code, answer.json()["champion"]) == (200, 1)


@pytest.mark.slow
def test_a_command_to_roll_back_ends_while_mlflow_is_silent(installation: Wiring) -> None:
    promoted(installation, 1)
    promoted(installation, 2)
    with closing(a_silent_server()) as mlflow:
        done = subprocess.run(
            [sys.executable, "-m", "stack.rollback", MODEL],
            cwd=ROOT, env=environment(installation, 1) | {"EVERGREEN_MLFLOW_TRACKING_URI": address_of(mlflow)},
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip

    assert "version 1 is the champion" in done.stdout
    assert "its aliases are not changed yet, the next reconciler does it" in done.stderr


@pytest.mark.slow
def test_serving_starts_and_goes_back_where_nobody_listens_for_mlflow(
    installation: Wiring, admin: dict[str, str]
) -> None:
    promoted(installation, 1)
    promoted(installation, 2)
    port, closed = free_port("127.0.0.1"), free_port("127.0.0.1")
    variables = environment(installation, port) | {"EVERGREEN_MLFLOW_TRACKING_URI": f"http://127.0.0.1:{closed}"}
    process = subprocess.Popen([sys.executable, "-m", "serving"], cwd=ROOT, env=variables)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=3.0) as client:

            def starts() -> bool:
                with suppress(httpx.TransportError):
                    return client.get("/health").is_success
                return False

            eventually(starts, seconds=150)  # of which all but one go by with imports, on a machine that is busy
            answer = client.post(f"/models/{MODEL}/rollback", headers=admin, timeout=15)
    finally:
        process.terminate()
        process.wait(60)

    assert (answer.status_code, answer.json()["champion"]) == (200, 1)


@pytest.mark.alone
@pytest.mark.slow
def test_a_rollback_takes_effect_on_every_serving_process_within_two_seconds(
    installation: Wiring, admin: dict[str, str]
) -> None:
    first = promoted(installation, 1)
    with serving(installation, 3) as workers, serving(installation, 1) as (other,):
        one, both = workers[0], [*workers, other]
        seconds_until(both, 1)
        promoted(installation, 2)
        seconds_until(both, 2)

        assert one.post(f"/models/{MODEL}/rollback").status_code == 401
        assert one.post(f"/models/{MODEL}/rollback", headers={"Authorization": "Bearer no"}).status_code == 401
        begun = time.monotonic()
        given = admin | {"Idempotency-Key": "night shift", "X-Reason": "too many late"}
        answer = one.post(f"/models/{MODEL}/rollback", headers=given)
        answered_seconds = time.monotonic() - begun
        assert (answer.status_code, answer.json()["champion"]) == (200, 1)
        assert answered_seconds + seconds_until(both, 1) < EFFECTIVE_SECONDS
        assert journal(installation)[-1] == ("roll_back", "http/night-shift", "too many late")
        eventually(lambda: installation.registry.mirrored(MODEL)[0] == {"champion": 1}, seconds=60)

        assert one.post(f"/models/{MODEL}/rollback", headers=given).json() == answer.json()  # nothing changes
        refused = one.post(f"/models/{MODEL}/rollback", headers=admin | {"X-Again": "true"})
        assert (refused.status_code, "no previous champion" in refused.json()["detail"]) == (409, True)
        assert one.post("/models/taxi/rollback", headers=admin).status_code == 404

        promoted(installation, 2)
        seconds_until(both, 2)
        command = [sys.executable, "-m", "stack.rollback", MODEL, "--reason", "too many late"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(installation, 1), capture_output=True, text=True, check=True
        )
        assert "version 1 is the champion" in done.stdout
        assert seconds_until(both, 1) < EFFECTIVE_SECONDS
        assert journal(installation)[-1][0] == "roll_back"
    assert first.champion == 1
