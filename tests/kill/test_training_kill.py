"""Law 6 in training: killed anywhere and run again, it ends in the same bytes; and nothing outlives its parent."""

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from evergreen.errors import TrainingFailed
from evergreen.training.job import TrainingJob
from evergreen.training.launch import train
from evergreen.types import TrainedModel
from tests.training_factories import a_job, a_training_set

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="death signals are Linux's")

STEPS = 110
ASKER = "import sys; from evergreen.training.launch import train; from evergreen.training.job import TrainingJob\n"
ASKER += "train(TrainingJob.model_validate_json(open(sys.argv[1]).read()), lambda line: print(line, flush=True))"


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Also where there is a GPU: bit for bit is promised on CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, TrainedModel]:
    folder = tmp_path_factory.mktemp("undisturbed")
    job = a_job(folder, a_training_set(folder), ranks=2, batch_size=32, checkpoint_seconds=0.0)
    return job, train(job, lambda _: None)


def processes_of(job: TrainingJob) -> list[psutil.Process]:
    """The launcher, then its ranks in the order they were started."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        if str(job.path / "job.json") in (process.info["cmdline"] or []):
            found.append(process)
    return sorted(found, key=lambda process: (process.info["create_time"], process.pid))


def kill_at(job: TrainingJob, step: int, position: int) -> Callable[[str], None]:
    """Kill one of the job's processes -9 when this step is told; they are looked up before, to lose no time then."""
    found: list[psutil.Process] = []

    def on_line(line: str) -> None:
        if line.startswith("training on"):
            found.extend(processes_of(job))
        if line.startswith("step ") and int(line.split("/")[0][5:]) >= step:
            found[position].kill()

    return on_line


@pytest.mark.parametrize("victim", ["launcher", "rank 0", pytest.param("rank 1", marks=pytest.mark.slow)])
def test_killed_at_any_step_it_goes_on_to_the_same_bytes(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, victim: str
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    step = random.Random(f"{victim} of {tmp_path.parent.name}").randrange(2, STEPS // 2)  # another one each session
    position = ["launcher", "rank 0", "rank 1"].index(victim)

    with pytest.raises(TrainingFailed, match=r"SIGKILL|ended with"):
        train(job, kill_at(job, step, position))
    psutil.wait_procs(processes_of(job), timeout=10)
    assert processes_of(job) == []
    resumed = train(job, lambda _: None)

    assert resumed.digest == undisturbed[1].digest, f"killed {victim} at step {step}"
    assert resumed.curve == undisturbed[1].curve
    assert step - 1 <= resumed.resumed_from_step < STEPS


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_whoever_asked_takes_all_processes_with_it_and_the_next_goes_on(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, sign: signal.Signals
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    description = tmp_path / "asked.json"
    description.write_text(job.model_dump_json())

    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(description)], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    with asker.stdout as lines:
        for line in lines:
            if line.startswith("step 5"):
                asker.send_signal(sign)
                break
    asker.wait(timeout=20)

    _, alive = psutil.wait_procs(processes_of(job), timeout=10)
    assert alive == []
    if sign is signal.SIGKILL:  # one of them goes on, which is enough: the folder's lock is free and its state whole
        assert train(job, lambda _: None).digest == undisturbed[1].digest


def test_a_damaged_newest_checkpoint_costs_a_few_steps_and_is_named(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    with pytest.raises(TrainingFailed):
        train(job, kill_at(job, 12, 0))
    newest, before = sorted(job.checkpoints_path.glob("step-*"), reverse=True)[:2]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    lines: list[str] = []

    resumed = train(job, lines.append)

    assert f"refused: checkpoint {newest.name} is torn or altered" in "\n".join(lines)
    assert resumed.resumed_from_step == int(before.name[5:14])
    assert resumed.digest == undisturbed[1].digest
