"""The same worker on a Ray cluster: a node lost in mid-training costs some steps and not a bit of the result."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from evergreen.errors import ConfigurationError, DataError, TrainingFailed, TrainingStopped
from evergreen.training.run.job import Placement, TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import TrainedModel
from stack.ports import free_port
from tests.training_factories import a_job, a_training_set

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="two raylets on one machine: Linux only"),
]
RAY = str(Path(sys.executable).with_name("ray"))
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


def a_node(cluster: Placement, temp: Path) -> psutil.Process:
    before = {process.pid for process in raylets()}
    start("--address", cluster.ray_address, "--num-cpus", "1", temp=temp)
    return next(process for process in raylets() if process.pid not in before)


@pytest.fixture(scope="module")
def cluster() -> Placement:
    """On a free port, of those beyond the range Ray gives to workers (10002 to 19999)."""
    return Placement(trainer="ray", ray_address=f"127.0.0.1:{free_port('127.0.0.1')}")


@pytest.fixture(scope="module")
def temp(cluster: Placement) -> Iterator[Path]:
    """A short path: Ray's sockets lie below it."""
    folder = Path(f"/tmp/ray-{os.getpid()}")
    folder.mkdir()
    before = {process.pid for process in psutil.process_iter()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # also for who keeps a token for another cluster
        port = cluster.ray_address.rpartition(":")[2]
        head = ["--head", "--port", port, "--num-cpus", "0", "--include-dashboard", "false"]
        start(*head, "--node-ip-address", "127.0.0.1", temp=folder)
        yield folder
    left = [
        p for p in psutil.process_iter(["cmdline"]) if p.pid not in before and str(folder) in str(p.info["cmdline"])
    ]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def nodes(cluster: Placement, temp: Path) -> list[psutil.Process]:
    return [a_node(cluster, temp), a_node(cluster, temp)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, TrainedModel]:
    """Of a run on this machine."""
    folder = tmp_path_factory.mktemp("here")
    job = a_job(folder, a_training_set(folder), ranks=2, batch_size=8, checkpoint_seconds=0.0)
    return job, train(job, lambda _: None)


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_told_to_stop_all_ranks_save_first_and_the_next_run_goes_on_there(
    cluster: Placement,
    nodes: list[psutil.Process],
    undisturbed: tuple[TrainingJob, TrainedModel],
    tmp_path: Path,
) -> None:
    job, model = undisturbed
    # No checkpoint is due in an hour: what there is, the notice made.
    patient = job.spec.model_copy(update={"train": job.spec.train.model_copy(update={"checkpoint_seconds": 3_600.0})})
    elsewhere = job.model_copy(update={"folder": str(tmp_path), "spec": patient})
    told: list[float] = []

    def stop(line: str) -> None:
        if line.startswith("step ") and not told:
            [launcher] = [p for p in psutil.process_iter(["cmdline"]) if str(elsewhere.path) in str(p.info["cmdline"])]
            launcher.send_signal(signal.SIGTERM)
            told.append(time.time())

    with pytest.raises(TrainingStopped, match=r"told to stop \(SIGTERM\) and saved at step"):
        train(elsewhere, stop, placement=cluster)
    [checkpoint] = elsewhere.checkpoints_path.glob("step-*")
    assert checkpoint.stat().st_mtime - told[0] < 5.0
    resumed = train(elsewhere, lambda _: None)

    assert 0 < resumed.resumed_from_step < model.steps
    assert resumed.digest == model.digest


@pytest.mark.timeout(900)
def test_a_node_lost_in_mid_training_changes_no_byte(
    cluster: Placement,
    temp: Path,
    nodes: list[psutil.Process],
    undisturbed: tuple[TrainingJob, TrainedModel],
    tmp_path: Path,
) -> None:
    job, model = undisturbed
    elsewhere = job.model_copy(update={"folder": str(tmp_path / "ray")})
    lines: list[str] = []

    def lose_a_node(line: str) -> None:
        lines.append(line)
        if not line.startswith("step ") or int(line.split("/")[0][5:]) <= 60 or len(nodes) != 2:
            return
        if list(elsewhere.checkpoints_path.glob("step-*")):  # a busy disk may be behind
            lost = nodes.pop()
            for process in [lost, *lost.children(recursive=True)]:
                process.kill()
            nodes.extend([a_node(cluster, temp), lost])

    while len(nodes) == 2:  # the steps may be over before a slow disk has a checkpoint, and then none was lost
        shutil.rmtree(elsewhere.path, ignore_errors=True)
        resumed = train(elsewhere, lose_a_node, placement=cluster)

    said = "\n".join(lines)
    assert "resumed at step " in said
    assert (resumed.digest, resumed.ranks) == (model.digest, 2), said

    # What a rank refuses is not tried again, and arrives as what it is.
    unlabelled = a_training_set(tmp_path, change=lambda frame: frame.drop(columns="label"))
    with pytest.raises(DataError, match=r"lacks columns \['label'\]"):
        train(
            a_job(tmp_path, unlabelled, ranks=2),
            lines.append,
            placement=cluster,
        )


@pytest.mark.timeout(400)
def test_a_breakdown_nobody_foresaw_is_told_and_not_tried_again(
    cluster: Placement, nodes: list[psutil.Process], tmp_path: Path
) -> None:
    rows = a_training_set(tmp_path).model_copy(update={"uri": str(tmp_path / "gone.parquet")})

    with pytest.raises(
        TrainingFailed, match=r"a rank broke with FileNotFoundError: .*gone\.parquet.*mend that and run"
    ):
        train(a_job(tmp_path, rows), lambda _: None, placement=cluster)


def test_a_cluster_that_is_not_there_is_named(tmp_path: Path) -> None:
    placement = Placement(trainer="ray", ray_address="127.0.0.1:1")

    with pytest.raises(
        ConfigurationError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'.*EVERGREEN_TRAINER=local"
    ):
        train(a_job(tmp_path, a_training_set(tmp_path)), lambda _: None, placement=placement)
