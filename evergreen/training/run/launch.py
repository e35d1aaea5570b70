"""Train a job in processes of its own, and bring back what they say.

`train` is called by tasks and stays free of torch. It starts this module as a program, in a session of its own that
ends with its parent; the program calls `launch`, which runs `worker.run_rank` once a rank: in processes of this machine by
torch's elastic launch, or on a cluster by Ray Train (`cluster.py`). A job that is finished is not trained again; one that
was killed goes on from its newest valid checkpoint; one that is being trained elsewhere is waited for.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from evergreen import errors
from evergreen.errors import ArtifactError, EvergreenError, TrainingFailed
from evergreen.training.artifact import artifact_digest, write_durably
from evergreen.training.run.job import HERE, Placement, TrainingJob
from evergreen.training.run.processes import (
    ERROR_MARK,
    PROGRESS_MARK,
    REFUSED,
    die_with_parent,
    locked,
    stop_session,
    tell,
)
from evergreen.training.run.spending import note_launcher, spent
from evergreen.types import Progress, Rates, TrainedModel

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

Worker: TypeAlias = Callable[[str, float, int | None], None]
"""One rank: the job's file, when the training started, the process it must not outlive."""
_RESTARTS = 3
_LAST_LINES = 20
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def train(
    job: TrainingJob,
    on_line: Callable[[str], None] = print,
    on_progress: Callable[[Progress], None] = lambda _: None,
    rates: Rates = Rates(),  # noqa: B008 (frozen)
    placement: Placement = HERE,
) -> TrainedModel:
    """Train the job's model where `placement` says, or return it at once if that is done.

    Every line the ranks print goes to `on_line`, how far they are to `on_progress`; both should return soon, since the
    ranks wait for them. What either raises stops the ranks, and the next call goes on from their newest checkpoint. What it
    cost over all of its parts is priced by `rates`.

    Raises `DataError` when rows, columns or labels are not what training needs, `TrainingStopped` when the ranks were told to
    stop, and `TrainingFailed`, with the last lines, when it ended without a model.
    """
    job.path.mkdir(parents=True, exist_ok=True)
    with locked(
        job.path / "lock", lambda: on_line(f"waiting: {job.path.name} is being trained by another process")
    ) as lock:
        found = _finished(job, on_line, rates)
        if found is None:
            job.stop_path.unlink(missing_ok=True)
            write_durably(job.path / "job.json", job.model_dump_json().encode())
            try:
                _run(job, on_line, on_progress, placement, lock)
            except TrainingFailed:
                found = _finished(job, on_line, rates)  # the signal may have come when the model was made
                if found is None:
                    raise
            else:
                found = _finished(job, on_line, rates)
        if found is None:
            raise TrainingFailed(
                f"training {job.spec.name!r} ended well but left no result in {job.path}. Run it again."
            )
        return found


def _finished(job: TrainingJob, on_line: Callable[[str], None], rates: Rates) -> TrainedModel | None:
    if not job.result_path.is_file():
        return None
    result = TrainedModel.model_validate_json(job.result_path.read_text())
    try:
        digest = artifact_digest(job.model_path)
    except ArtifactError:
        digest = "sha256:missing"
    if digest != result.digest:
        on_line(f"the model in {job.model_path} is not the one that was made there; making it again")
        return None
    # A job's digest leaves out what does not shape the weights, so these two may have changed since.
    mine = {"training_set": job.training_set, "spec_digest": job.spec.digest}
    return result.model_copy(update=mine | {"job": job.digest, "cost": spent(job.spent_path, rates)})


def _run(
    job: TrainingJob,
    on_line: Callable[[str], None],
    on_progress: Callable[[Progress], None],
    placement: Placement,
    lock: int,
) -> None:
    program = [sys.executable, "-m", "evergreen.training.run.launch", str(job.path / "job.json"), str(os.getpid())]
    program.append(placement.model_dump_json())
    process = subprocess.Popen(
        program,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=(lock,),  # held by the ranks too: the folder is free when the last of them is gone
        env={**os.environ, **_ONE_THREAD, "TORCH_CPP_LOG_LEVEL": "ERROR", "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_LAST_LINES)
    told: EvergreenError | None = None
    try:
        for line in map(str.rstrip, process.stdout):
            if line.startswith(ERROR_MARK):
                told = told or _error_of(line)
                continue
            if line.startswith(PROGRESS_MARK):
                on_progress(Progress.model_validate_json(line.removeprefix(PROGRESS_MARK)))
                continue
            last.append(line)
            on_line(line)
        status = process.wait()
    finally:
        stop_session(process)
        process.stdout.close()
    if told is not None:
        raise told
    if status != 0:
        raise TrainingFailed(
            f"training {job.spec.name!r} ended with {_name_of(status)} and without a model. Its last lines:\n"
            + "\n".join(last)
            + "\nRun it again: it goes on from its newest checkpoint."
        )


def _error_of(line: str) -> EvergreenError:
    told = json.loads(line.removeprefix(ERROR_MARK))
    kind = getattr(errors, told["kind"], TrainingFailed)
    return kind(told["message"])


def _name_of(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def launch(worker: Worker, job: TrainingJob, placement: Placement) -> int:
    """Run one worker a rank where `placement` says; returns the exit status of the whole.

    A group that lost a rank starts again by itself and goes on from the newest checkpoint, a few times.
    """
    if placement.trainer == "ray":
        from evergreen.training.run.cluster import launch_on_ray

        return launch_on_ray(worker, job, placement.ray_address, _RESTARTS)
    return launch_here(worker, job)


def launch_here(worker: Worker, job: TrainingJob) -> int:
    """On this machine, by torch's elastic launch; see `launch`."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    started, notes = time.time(), job.path / "elastic"
    for restarts in range(_RESTARTS + 1):
        try:
            elastic_launch(_configuration(job, notes), worker)(str(job.path / "job.json"), started, os.getpid())
        except SignalException as told:
            return 128 + told.sigval
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode == REFUSED:
                return REFUSED
            ended = f"rank {rank} ended first, with {_name_of(failure.exitcode)}"
            if restarts == _RESTARTS:
                tell(f"{ended}; that was the last of {_RESTARTS + 1} attempts")
                return 1
            tell(f"{ended}; all ranks start again from the newest checkpoint")
        else:
            return 0
        finally:
            shutil.rmtree(notes, ignore_errors=True)
    raise AssertionError("unreachable: the last attempt returns")


def _configuration(job: TrainingJob, notes: Path) -> "LaunchConfig":
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    gpus = torch.cuda.device_count()
    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=min(job.spec.train.ranks, gpus) if gpus else job.spec.train.ranks,
        run_id=job.path.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        start_method="spawn" if gpus else "fork",  # a fork shares what is imported: seconds less a rank
        logs_specs=DefaultLogsSpecs(log_dir=str(notes)),
    )


def main(job_file: str, parent: int, placement: str) -> int:
    """The program: launch the ranks of one job; returns the exit status."""
    die_with_parent(parent)
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # look for GPUs without opening them: ranks are forked
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from evergreen.training.run.worker import run_rank

    for name in ("torch.distributed", "torch.distributed.elastic", "torch.multiprocessing"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    job = TrainingJob.model_validate_json(Path(job_file).read_text())
    started = time.time()
    note_launcher(job.note_paths, started)
    try:
        return launch(run_rank, job, Placement.model_validate_json(placement))
    finally:
        note_launcher(job.note_paths, started)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
