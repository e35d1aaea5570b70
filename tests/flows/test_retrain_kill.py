"""Law 6 for `retrain`: killed with -9 in the middle of training and run again, it ends as if nothing had happened."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from evergreen.types import Outcome
from evergreen.wiring import Wiring
from tests.flow_worlds import FIRST, flow_process, living_in
from tests.processes import killed_alone

RUN = """
import sys
from datetime import datetime
from flows.retrain import retrain
from evergreen.types import Cause
outcome = retrain("flight_delay", datetime.fromisoformat(sys.argv[1]), Cause.DECAY, "one")
print("OUTCOME " + outcome.model_dump_json(), flush=True)
"""
LEASE_SECONDS = "1"


def start(home: Path, api: str) -> "subprocess.Popen[str]":
    """`retrain`, whose lease on its request soon ends when it dies."""
    return flow_process(home, api, RUN, EVERGREEN_LEASE_SECONDS=LEASE_SECONDS)


def finished(process: "subprocess.Popen[str]") -> tuple[Outcome, str]:
    """What came of it, and what it printed."""
    output, _ = process.communicate(timeout=240)
    lines = [line for line in output.splitlines() if line.startswith("OUTCOME ")]
    assert lines, output[-3000:]
    return Outcome.model_validate(json.loads(lines[-1].removeprefix("OUTCOME "))), output


def await_checkpoint(home: Path, process: "subprocess.Popen[str]") -> None:
    """Return once training has saved a step."""
    deadline = time.monotonic() + 240
    while not list((home / "training").glob("*/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    with living_in(tmp_path / "home") as wire:
        spec = wire.settings.models_dir / "flight_delay.toml"
        spec.write_text(spec.read_text().replace("epochs = 1", "epochs = 3\ncheckpoint_seconds = 0"))
        pipeline = wire.pipeline(wire.spec("flight_delay"))
        pipeline.ingest(wire.settings.data, FIRST)
        pipeline.build(wire.settings.data, FIRST)
    return tmp_path / "home"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_retrain_killed_in_training_and_run_again_ends_in_the_same_version(home: Path, prefect_api: str) -> None:
    killed = start(home, prefect_api)
    await_checkpoint(home, killed)
    assert killed_alone(killed) == []

    time.sleep(float(LEASE_SECONDS))  # the dead run's lease, in wall time
    outcome, output = finished(start(home, prefect_api))

    assert outcome.verdict == "passed", outcome.reasons
    assert re.search(r"resumed at step [1-9]", output)
    with living_in(home) as wire:
        assert versions(wire) == [1]
        with wire.records() as records:
            asked = records.admissions.recent("flight_delay")
            journal = records.releases.journal("flight_delay")
    assert sorted(request.status for request in asked) == ["done", "failed"]
    assert [entry.after.champion for entry in journal] == [1]


def versions(wire: Wiring) -> list[int]:
    from mlflow import MlflowClient

    client = MlflowClient(wire.settings.tracking_uri, wire.settings.tracking_uri)
    return [int(found.version) for found in client.search_model_versions("name='flight_delay'")]
