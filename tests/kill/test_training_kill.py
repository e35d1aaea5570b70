"""Law 6 in training: killed anywhere and run again, it ends in the same bytes; and nothing outlives its parent."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from evergreen.errors import TrainingFailed, TrainingStopped
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import TrainedModel
from tests.training_factories import a_job, a_training_set

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="death signals are Linux's")

STEPS = 220
"""Several times the last step a signal is sent at: a busy machine tells of a step when the ranks are some way past it."""
LATEST = STEPS // 2
"""No signal is sent at a later one."""
ASKER = (
    "import sys; from evergreen.training.run.launch import train; from evergreen.training.run.job import TrainingJob\n"
)
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
    job = a_job(folder, a_training_set(folder), ranks=2, batch_size=32, epochs=4, checkpoint_seconds=0.0)
    return job, train(job, lambda _: None)


def processes_of(job: TrainingJob) -> list[psutil.Process]:
    """The launcher, then its ranks in the order they were started."""
    found = []
    for process in psutil.process_iter(["cmdline", "create_time"]):
        if str(job.path / "job.json") in (process.info["cmdline"] or []):
            found.append(process)
    return sorted(found, key=lambda process: (process.info["create_time"], process.pid))


@dataclass
class Kill:
    """Signals one of a job's first processes once, when this step is told; they are looked up before, to lose no time.

    A busy disk may be behind: with `checkpoints` it waits for a later step at which that many are whole.
    """

    job: TrainingJob
    step: int
    position: int
    sign: signal.Signals = signal.SIGKILL
    checkpoints: int = 0
    made_at: float | None = None
    """On the monotonic clock; None before."""
    lines: list[str] = field(default_factory=list)
    """All that was told."""
    _found: list[psutil.Process] = field(default_factory=list)

    def on_line(self, line: str) -> None:
        self.lines.append(line)
        if self.made_at is not None:
            return
        if line.startswith("training on"):
            self._found = processes_of(self.job)
        if not line.startswith("step ") or not self.step <= int(line.split("/")[0][5:]) <= LATEST:
            return
        if self._found[self.position :] and whole_checkpoints(self.job) >= self.checkpoints:
            self._found[self.position].send_signal(self.sign)
            self.made_at = time.monotonic()


def whole_checkpoints(job: TrainingJob) -> int:
    return len(list(job.checkpoints_path.glob("step-*")))


def train_until(kill: Kill) -> TrainedModel:
    """Train with a kill in it: where the ranks were so far before the disk was, begin again from nothing."""
    while True:
        model = train(kill.job, kill.on_line)
        if kill.made_at is not None:
            return model
        shutil.rmtree(kill.job.path)


def with_train(job: TrainingJob, **values: object) -> TrainingJob:
    spec = job.spec
    return job.model_copy(update={"spec": spec.model_copy(update={"train": spec.train.model_copy(update=values)})})


def some_step(request: pytest.FixtureRequest) -> int:
    """Another one each session."""
    return random.Random(f"{request.node.name} {os.getpid()} {time.time_ns()}").randrange(2, STEPS // 4)


def test_a_rank_killed_at_any_step_is_started_again_and_ends_in_the_same_bytes(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    step, victim = some_step(request), random.choice([1, 2])
    kill = Kill(job, step, victim, checkpoints=1)

    resumed = train_until(kill)

    said = f"killed rank {victim - 1} at step {step}:\n" + "\n".join(kill.lines)
    assert "all ranks start again from the newest checkpoint" in said
    assert "resumed at step" in said
    assert (resumed.digest, resumed.curve) == (undisturbed[1].digest, undisturbed[1].curve), said
    assert processes_of(job) == []


@pytest.mark.slow
def test_shards_come_to_what_copies_come_to_and_end_in_the_same_bytes_though_a_rank_is_killed(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    sharded = with_train(undisturbed[0], parallelism="fsdp")
    whole, broken = (sharded.model_copy(update={"folder": str(tmp_path / name)}) for name in ("whole", "broken"))
    step = some_step(request)
    kill = Kill(broken, step, random.choice([1, 2]), checkpoints=1)

    model, resumed = train(whole, lambda _: None), train_until(kill)

    assert any("resumed at step" in line for line in kill.lines), f"killed at step {step}"
    assert (resumed.digest, resumed.curve) == (model.digest, model.curve), f"killed at step {step}"
    for ours, theirs in zip(model.curve, undisturbed[1].curve, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.alone
def test_with_its_launcher_killed_at_any_step_it_saves_and_the_next_run_goes_on_to_the_same_bytes(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    step = some_step(request)

    with pytest.raises(TrainingFailed, match=r"SIGKILL|told to stop"):
        train(job, Kill(job, step, 0).on_line)
    resumed = train(job, lambda _: None)

    assert resumed.resumed_from_step >= step - 1, f"killed at step {step}"
    assert (resumed.digest, resumed.curve) == (undisturbed[1].digest, undisturbed[1].curve), f"killed at step {step}"


@pytest.mark.alone
@pytest.mark.parametrize(
    "victim", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)]
)
def test_told_to_stop_it_saves_within_five_seconds_and_goes_on_there(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path, request: pytest.FixtureRequest, victim: int
) -> None:
    # No checkpoint is due in an hour: what there is, the notice made. Launcher or rank, whoever hears it.
    job = with_train(undisturbed[0], checkpoint_seconds=3_600.0).model_copy(update={"folder": str(tmp_path)})
    step = some_step(request)
    notice = Kill(job, step, victim, signal.SIGTERM)

    with pytest.raises(TrainingStopped, match=r"told to stop \(SIGTERM\) and saved at step \d+/220") as stopped:
        train(job, notice.on_line)
    assert notice.made_at is not None
    seconds = time.monotonic() - notice.made_at
    resumed = train(job, lambda _: None)

    assert seconds < 5.0
    assert f"saved at step {resumed.resumed_from_step}/" in str(stopped.value)
    assert resumed.resumed_from_step >= step
    assert (resumed.digest, resumed.curve) == (undisturbed[1].digest, undisturbed[1].curve), f"told at step {step}"


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, "fsdp"), (1, "ddp")),
        ((1, "ddp"), (2, "fsdp")),
        ((2, "ddp"), (1, "ddp")),
        ((1, "ddp"), (2, "ddp")),
        ((2, "fsdp"), (2, "fsdp")),
        ((2, "fsdp"), (3, "fsdp")),
    ],
)
def test_it_goes_on_with_other_ranks_and_shards_to_the_same_model_up_to_rounding(
    undisturbed: tuple[TrainingJob, TrainedModel],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    before: tuple[int, str],
    after: tuple[int, str],
) -> None:
    step = some_step(request)
    first, second = (
        with_train(undisturbed[0], ranks=ranks, parallelism=parallelism).model_copy(update={"folder": str(tmp_path)})
        for ranks, parallelism in (before, after)
    )

    with pytest.raises(TrainingStopped):
        train(first, Kill(first, step, 1, signal.SIGTERM).on_line)
    lines: list[str] = []
    resumed = train(second, lines.append)

    assert resumed.resumed_from_step >= step
    told = [f", saved by {before[0]} ranks: equal up to rounding"] if before[0] != after[0] else []
    assert [line.partition(f"/{STEPS}")[2] for line in lines if line.startswith("resumed")] == (told or [""])
    for ours, theirs in zip(resumed.curve, undisturbed[1].curve, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-5), f"stopped at step {step}"


@pytest.mark.parametrize(
    "sign",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
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
    asker.wait(timeout=60)

    _, alive = psutil.wait_procs(processes_of(job), timeout=60)
    assert alive == []
    if sign is signal.SIGKILL:  # one of them goes on, which is enough: the folder's lock is free and its state whole
        assert train(job, lambda _: None).digest == undisturbed[1].digest


def test_a_damaged_newest_checkpoint_costs_a_few_steps_and_is_named(
    undisturbed: tuple[TrainingJob, TrainedModel], tmp_path: Path
) -> None:
    job = undisturbed[0].model_copy(update={"folder": str(tmp_path)})
    with pytest.raises(TrainingFailed):
        train_until(Kill(job, 12, 0, checkpoints=2))
    newest, before = sorted(job.checkpoints_path.glob("step-*"), reverse=True)[:2]
    shard = next(newest.glob("shard-*"))
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    lines: list[str] = []

    resumed = train(job, lines.append)

    assert f"refused: checkpoint {newest.name} is torn or altered" in "\n".join(lines)
    assert resumed.resumed_from_step == int(before.name[5:14])
    assert resumed.digest == undisturbed[1].digest
