"""The same worker on a Ray cluster: a node lost in mid-training costs some steps and not a bit of the result."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evergreen.errors import ConfigurationError, DataError
from evergreen.training.job import Placement
from evergreen.training.launch import train
from tests.training_factories import a_job, a_training_set

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="two raylets on one machine: Linux only"),
]
RAY = str(Path(sys.executable).with_name("ray"))
PORT = 26379
"""Outside the range Ray gives to workers (10002 to 19999)."""
MEMORY = str(80 << 20)


def start(*arguments: str, temp: Path) -> None:
    subprocess.run(
        [RAY, "start", "--object-store-memory", MEMORY, "--disable-usage-stats", *arguments],
        check=True,
        capture_output=True,
        timeout=90,
        env={**os.environ, "RAY_TMPDIR": str(temp), "OMP_NUM_THREADS": "1"},
    )


def raylets() -> list[psutil.Process]:
    found = [p for p in psutil.process_iter(["name", "create_time"]) if p.info["name"] == "raylet"]
    return sorted(found, key=lambda process: process.info["create_time"])


def a_node(temp: Path) -> psutil.Process:
    before = {process.pid for process in raylets()}
    start("--address", f"127.0.0.1:{PORT}", "--num-cpus", "1", temp=temp)
    return next(process for process in raylets() if process.pid not in before)


@pytest.fixture(scope="module")
def temp() -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path(f"/tmp/ray-{os.getpid()}")
    folder.mkdir()
    before = {process.pid for process in psutil.process_iter()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("RAY_TMPDIR", str(folder))
        head = ["--head", "--port", str(PORT), "--num-cpus", "0", "--include-dashboard", "false"]
        start(*head, "--node-ip-address", "127.0.0.1", temp=folder)
        yield folder
    left = [
        p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and str(folder) in str(p.info["cmdline"])
    ]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=10)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(400)
def test_a_node_lost_in_mid_training_changes_no_byte(temp: Path, tmp_path: Path) -> None:
    job = a_job(tmp_path / "here", a_training_set(tmp_path), ranks=2, batch_size=8, checkpoint_seconds=0.0)
    undisturbed = train(job, lambda _: None)
    nodes = [a_node(temp), a_node(temp)]
    lines: list[str] = []

    def lose_a_node(line: str) -> None:
        lines.append(line)
        if line.startswith("step ") and int(line.split("/")[0][5:]) > 60 and len(nodes) == 2:
            lost = nodes.pop()
            for process in [lost, *lost.children(recursive=True)]:
                process.kill()
            nodes.extend([a_node(temp), lost])

    elsewhere = job.model_copy(update={"folder": str(tmp_path / "ray")})
    resumed = train(elsewhere, lose_a_node, placement=Placement(trainer="ray", ray_address=f"127.0.0.1:{PORT}"))

    said = "\n".join(lines)
    assert len(nodes) == 3, said
    assert "resumed at step " in said
    assert (resumed.digest, resumed.ranks) == (undisturbed.digest, 2), said

    # What a rank refuses is not tried again, and arrives as what it is.
    unlabelled = a_training_set(tmp_path, change=lambda frame: frame.drop(columns="label"))
    with pytest.raises(DataError, match=r"lacks columns \['label'\]"):
        train(
            a_job(tmp_path, unlabelled, ranks=2),
            lines.append,
            placement=Placement(trainer="ray", ray_address=f"127.0.0.1:{PORT}"),
        )


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    placement = Placement(trainer="ray", ray_address="127.0.0.1:1")

    with pytest.raises(
        ConfigurationError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'.*EVERGREEN_TRAINER=local"
    ):
        train(a_job(tmp_path, a_training_set(tmp_path)), lambda _: None, placement=placement)
