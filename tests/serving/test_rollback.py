"""The way back over HTTP and on the command line, as two serving processes see it."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from evergreen.release import start
from evergreen.settings import ROOT
from evergreen.types import Release
from evergreen.wiring import Wiring
from stack.environment import QUIET
from stack.ports import free_port
from tests.serving.conftest import installation
from tests.serving.serving_factories import NOON

KEY = "open sesame"
HEADERS = {"Authorization": f"Bearer {KEY}"}
MODEL = "flight_delay"
EFFECTIVE_SECONDS = 2.0


def environment(wire: Wiring, port: int = 0) -> dict[str, str]:
    return os.environ | QUIET | {
        "EVERGREEN_HOME": str(wire.settings.home),
        "EVERGREEN_MODELS_DIR": str(wire.settings.models_dir),
        "EVERGREEN_SERVING_PORT": str(port),
        "EVERGREEN_ADMIN_KEY_DIGEST": hashlib.sha256(KEY.encode()).hexdigest(),
    }  # fmt: skip


@contextmanager
def serving(wire: Wiring, port: int) -> Iterator[httpx.Client]:
    """A serving process of its own, at the default poll interval."""
    process = subprocess.Popen(
        [sys.executable, "-m", "serving"],
        cwd=ROOT, env=environment(wire, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


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


def give_everything(wire: Wiring, version: int) -> Release:
    with wire.records() as records:
        return records.releases.change(
            MODEL,
            lambda current: start(current, model=MODEL, version=version, share=1.0, at=NOON),
            action="start",
            actor="a test",
            reason="",
        )


def journal(wire: Wiring) -> list[tuple[str, str, str]]:
    with wire.records() as records:
        return [(entry.action, entry.actor, entry.reason) for entry in records.releases.journal(MODEL)]


@pytest.mark.slow
def test_a_rollback_takes_effect_on_two_serving_processes_within_two_seconds(installation: Wiring) -> None:
    ports = [free_port("127.0.0.1") for _ in range(2)]
    first = give_everything(installation, 1)
    with serving(installation, ports[0]) as one, serving(installation, ports[1]) as other:
        both = [one, other]
        seconds_until(both, 1)
        give_everything(installation, 2)
        seconds_until(both, 2)

        assert one.post(f"/models/{MODEL}/rollback").status_code == 401
        assert one.post(f"/models/{MODEL}/rollback", headers={"Authorization": "Bearer no"}).status_code == 401
        begun = time.monotonic()
        given = HEADERS | {"Idempotency-Key": "night shift", "X-Reason": "too many late"}
        answer = one.post(f"/models/{MODEL}/rollback", headers=given)
        answered_seconds = time.monotonic() - begun
        assert (answer.status_code, answer.json()["champion"]) == (200, 1)
        assert answered_seconds + seconds_until(both, 1) < EFFECTIVE_SECONDS
        assert journal(installation)[-1] == ("roll_back", "http/admin", "too many late")
        assert installation.registry.mirrored(MODEL)[0] == {"champion": 1}

        assert one.post(f"/models/{MODEL}/rollback", headers=given).json() == answer.json()  # nothing changes
        refused = one.post(f"/models/{MODEL}/rollback", headers=HEADERS)
        assert (refused.status_code, "no previous champion" in refused.json()["detail"]) == (409, True)
        assert one.post("/models/taxi/rollback", headers=HEADERS).status_code == 404

        give_everything(installation, 2)
        seconds_until(both, 2)
        command = [sys.executable, "-m", "stack.rollback", MODEL, "--reason", "too many late"]
        done = subprocess.run(
            command, cwd=ROOT, env=environment(installation, 1), capture_output=True, text=True, check=True
        )
        assert "version 1 is the champion" in done.stdout
        assert seconds_until(both, 1) < EFFECTIVE_SECONDS
        assert journal(installation)[-1][0] == "roll_back"
    assert first.champion == 1
