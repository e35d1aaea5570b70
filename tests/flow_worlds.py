"""A real Prefect server, and a world in which January's flights have trained the first champion."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, PREFECT_UI_URL, temporary_settings

from evergreen.settings import ROOT, Settings
from evergreen.types import Cause, Outcome
from evergreen.wiring import Wiring, wiring
from flows.retrain import retrain
from stack.drain import drain
from stack.environment import QUIET, environment
from stack.health import wait_for
from stack.ports import free_port
from tasks.scoring import runtime

FIRST = datetime(2013, 2, 5, 18, tzinfo=UTC)
"""What the first champion of these tests knows ends here."""


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prefect server of this session's own."""
    home = tmp_path_factory.mktemp("prefect")
    settings = Settings(home=home, prefect_port=free_port("127.0.0.1"))
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "stack.prefect_server"],
        cwd=ROOT, env=environment(settings, ["prefect"]), stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{settings.prefect_port}"
    try:
        wait_for(f"{url}/api/health", "Prefect")
        with temporary_settings(
            {PREFECT_API_URL: f"{url}/api", PREFECT_UI_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        ):
            yield f"{url}/api"
            drain()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=60)
        log.close()


@contextmanager
def living_in(home: Path) -> Iterator[Wiring]:
    """Make `home` this process's installation while the block lasts; its spec trains for one epoch, without a teacher."""
    models = home / "models_dir"
    if not models.exists():
        models.mkdir(parents=True)
        text = (ROOT / "models" / "flight_delay.toml").read_text()
        quick = text.replace("epochs = 4", "epochs = 1").replace("teacher_share = 0.5", "teacher_share = 0.0")
        (models / "flight_delay.toml").write_text(quick)
    patch = pytest.MonkeyPatch()
    patch.setenv("EVERGREEN_HOME", str(home))
    patch.setenv("EVERGREEN_MODELS_DIR", str(models))
    patch.setenv("EVERGREEN_CODE_REVISION", "test")
    wiring.cache_clear()
    runtime.cache_clear()
    try:
        yield wiring()
    finally:
        if runtime.cache_info().currsize:
            runtime().close()
        wiring.cache_clear()
        runtime.cache_clear()
        patch.undo()


def flow_process(home: Path, api: str, program: str, **settings: str) -> "subprocess.Popen[str]":
    """Python text in a process group of its own, living in `home`; its first argument is `FIRST`."""
    env = os.environ | QUIET | {
        "EVERGREEN_HOME": str(home),
        "EVERGREEN_MODELS_DIR": str(home / "models_dir"),
        "EVERGREEN_CODE_REVISION": "test",
        "PREFECT_API_URL": api,
    } | settings  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", program, FIRST.isoformat()],
        cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def first_champion(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The home after the first retrain, and what that retrain said. Copy it before changing it: see `world`."""
    home = tmp_path_factory.mktemp("first")
    with living_in(home):
        outcome = retrain("flight_delay", FIRST, Cause.BOOTSTRAP)
    return home, outcome


@pytest.fixture
def world(first_champion: tuple[Path, Outcome], tmp_path: Path) -> Iterator[Wiring]:
    """This test's own copy of the world after the first retrain."""
    shutil.copytree(first_champion[0], tmp_path / "home")
    with living_in(tmp_path / "home") as wire:
        yield wire


@pytest.fixture
def empty_world(prefect_api: str, tmp_path: Path) -> Iterator[Wiring]:
    """A world in which nothing has happened yet."""
    with living_in(tmp_path / "home") as wire:
        yield wire


@pytest.fixture
def rewrite_spec(tmp_path: Path) -> Callable[[str, str], None]:
    """Replace a line of this world's `flight_delay.toml`."""

    def rewrite(old: str, new: str) -> None:
        path = tmp_path / "home" / "models_dir" / "flight_delay.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return rewrite
