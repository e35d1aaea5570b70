"""What `make up` and `make demo` start, really started: event to retrain, a second start, Ctrl-C, and what is left."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from evergreen.settings import ROOT, Settings
from evergreen.types import Cause, Outcome, Remedy
from evergreen.wiring import Wiring, wiring
from stack.environment import environment
from stack.ports import free_port
from tests.flow_worlds import FIRST, living_in

START_SECONDS = 150.0


def eventually(holds: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@contextmanager
def stack(settings: Settings, *only: str) -> Iterator[dict[str, str]]:
    """The stack in a group of its own, interrupted as Ctrl-C does at the end; nothing of it may be left then."""
    env = environment(settings, only)
    log = settings.home / "stack.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "stack", "--only", ",".join(only)],
            cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
        )  # fmt: skip
    try:
        ready = Path(env["EVERGREEN_READY_FILE"])
        eventually(lambda: ready.exists() or process.poll() is not None, "the stack is not up")
        assert process.poll() is None, log.read_text()[-3000:]
        yield env
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        _, left = psutil.wait_procs(family, timeout=60)
        assert left == []
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)


@pytest.fixture
def settings(first_champion: tuple[Path, Outcome], tmp_path: Path) -> Iterator[Settings]:
    """A copy of the world after the first retrain, with ports of its own."""
    shutil.copytree(first_champion[0], tmp_path / "home")
    with living_in(tmp_path / "home"):
        ports = {f"{name}_port": free_port("127.0.0.1") for name in ("prefect", "serving", "mlflow")}
        yield Settings(**ports)  # type: ignore[arg-type]


def asked(wire: Wiring) -> list[str]:
    with wire.records() as records:
        return [request.status for request in records.admissions.recent("flight_delay") if request.episode == "storm"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_event_becomes_one_retrain_and_a_second_start_goes_on(settings: Settings) -> None:
    event = {
        "event": "evergreen.drift.detected",
        "resource": {"prefect.resource.id": "evergreen.model.flight_delay"},
        "payload": {
            "model": "flight_delay",
            "as_of": (FIRST + timedelta(days=1)).isoformat(),
            "cause": Cause.DECAY.value,
            "episode": "storm",
            "remedy": Remedy.RETRAIN.value,
        },
    }
    emit = f"from prefect.events import emit_event; emit_event(**{event!r})"
    with stack(settings, "prefect", "worker", "serving", "herald") as env:
        for _ in range(2):  # the same event twice: automations fire at least once
            subprocess.run([sys.executable, "-c", emit], cwd=ROOT, env=env, check=True)
        eventually(lambda: sorted(asked(wiring())) == ["done", "suppressed"], "one retrain and one suppressed", 420)
        served = httpx.get(f"http://127.0.0.1:{settings.serving_port}/models").json()
        assert [model["serving"]["champion"] for model in served] == [1]

    with stack(settings, "prefect", "serving", "herald"):
        retrains = {"deployments": {"name": {"any_": ["retrain"]}}}
        runs = httpx.post(f"http://127.0.0.1:{settings.prefect_port}/api/flow_runs/filter", json=retrains).json()
        assert [run["created_by"]["type"] for run in runs] == ["AUTOMATION", "AUTOMATION"]
        served = httpx.get(f"http://127.0.0.1:{settings.serving_port}/models").json()
        assert [model["serving"]["champion"] for model in served] == [1]


def test_a_taken_port_is_named_with_the_cure(tmp_path: Path) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        env = os.environ | {"EVERGREEN_HOME": str(tmp_path), "EVERGREEN_PREFECT_PORT": str(port)}
        command = [sys.executable, "-m", "stack", "--only", "prefect"]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"port {port} for prefect is taken" in done.stderr
    assert "EVERGREEN_PREFECT_PORT" in done.stderr


@pytest.mark.parametrize("value", ["abc", "70000"])
def test_a_port_that_is_none_is_refused_by_name(tmp_path: Path, value: str) -> None:
    env = os.environ | {"EVERGREEN_HOME": str(tmp_path), "EVERGREEN_SERVING_PORT": value}
    command = [sys.executable, "-m", "stack", "--only", "serving"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "serving_port" in done.stderr
    assert "Traceback" not in done.stderr


def hear_interrupts() -> None:
    """Whoever runs tests in the background of a shell ignores Ctrl-C, and so would what they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_interrupted_demo_leaves_nothing_and_the_next_one_runs_to_its_end(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "demo", "--weeks", "1", "--folder", str(tmp_path)]
    reports = tmp_path / "reports"
    state = tmp_path / ".evergreen" / "demo" / "training"
    first = subprocess.Popen(
        demo, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=hear_interrupts
    )
    eventually(lambda: state.exists() or first.poll() is not None, "training has not begun")
    family = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 130, output[-2000:]
    assert psutil.wait_procs(family, timeout=60)[1] == []

    (reports / "demo.json").unlink(missing_ok=True)
    done = subprocess.run(demo, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    story = json.loads((reports / "demo.json").read_text())
    assert [week["week"] for week in story["weeks"]] == [1]
    assert story["weeks"][0]["flights"] > 6_000
    # The first champion served: the same figures, but for how rows fell into batches.
    assert story["weeks"][0]["served"] == pytest.approx(story["weeks"][0]["frozen"], rel=1e-6)
    assert story["timings"]["total"] > 0
    assert (reports / "demo.html").stat().st_size > 10_000
