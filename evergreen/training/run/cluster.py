"""The ranks of a job as actors of a Ray cluster, by Ray Train: the same worker, other processes.

Every node must have this code (an image; on one machine PYTHONPATH, which is passed on) and see the job's folder under the
same path. A lost node or actor makes Ray Train start the group again where there is room; the worker then goes on from
its newest checkpoint. What the ranks print comes back through Ray's log stream. Called by `launch.py`, and the only file
that knows Ray.
"""

import contextlib
import io
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from evergreen.errors import ConfigurationError, EvergreenError, TrainingFailed
from evergreen.settings import ROOT
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.processes import REFUSED, error_line, tell

_ON_RANKS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
_HERE = {"RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1"}
_PREFIX = re.compile(r"^(\x1b\[\d+m)*\(RayTrainWorker [^)]*\)(\x1b\[\d+m)* ", re.MULTILINE)
_REFUSAL = "refusal"
"""File in the job's folder by which a rank says why to start again would end the same way."""

Worker = Callable[[str, float, int | None], None]


def launch_on_ray(worker: Worker, job: TrainingJob, address: str, restarts: int) -> int:
    """Run `worker` once a rank on the cluster at `address`; returns an exit status.

    `restarts` is how often the group may start again after it lost a rank.
    """
    os.environ.update(_HERE)
    try:
        _require_answer(address)
        environment = {**_ON_RANKS, "PYTHONPATH": str(ROOT)}
        ray.init(address=address, runtime_env={"env_vars": environment}, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"no Ray cluster answers at {address!r}: {error}. Start one (`ray start --head`), name it by "
        what += "EVERGREEN_RAY_ADDRESS, or train on this machine with EVERGREEN_TRAINER=local."
        tell(error_line(ConfigurationError(what)))
        return REFUSED
    refusal = job.path / _REFUSAL
    refusal.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: job.stop_path.touch())  # Ray's own would end this process and save nothing
    try:
        with contextlib.redirect_stdout(_WithoutPrefix(sys.stdout)):
            _trainer(worker, job, restarts).fit()
    except TrainingFailedError as error:
        tell(str(error))
        return 1
    finally:
        ray.shutdown()
    if refusal.is_file():
        tell(refusal.read_text())
        return REFUSED
    return 0


def _require_answer(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would try for minutes and hear no signal meanwhile."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=10).close()


def _trainer(worker: Worker, job: TrainingJob, restarts: int) -> TorchTrainer:
    ranks = job.spec.train.ranks
    gpus = ray.cluster_resources().get("GPU", 0) >= ranks  # type: ignore[no-untyped-call]
    return TorchTrainer(
        _rank,
        train_loop_config={"worker": worker, "folder": str(job.path), "started": time.time()},
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpus),
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        run_config=RunConfig(
            name="ray", storage_path=str(job.path), failure_config=FailureConfig(max_failures=restarts)
        ),
    )


def _rank(config: dict[str, Any]) -> None:
    folder = Path(config["folder"])
    try:
        config["worker"](str(folder / "job.json"), config["started"], None)
    except SystemExit as end:
        if end.code != REFUSED:
            raise RuntimeError(f"the rank ended with status {end.code}") from end
        # Ray would start a rank that fails again; this one returns and leaves word.
        (folder / _REFUSAL).write_text(error_line(_named(end)))


def _named(end: SystemExit) -> EvergreenError:
    """Why a rank refused; where that has no name, its traceback is among the lines."""
    if isinstance(end.__cause__, EvergreenError):
        return end.__cause__
    error = end.__cause__ or end.__context__
    return TrainingFailed(
        f"a rank broke with {type(error).__name__}: {error}. It would end the same way again, so it was not started again. "
        "Where it broke is among its last lines; mend that and run it again."
    )


class _WithoutPrefix(io.TextIOBase):
    """Ranks' lines as they said them, not with who said them in front."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def write(self, text: str) -> int:
        self._inner.write(_PREFIX.sub("", text))
        return len(text)

    def flush(self) -> None:
        self._inner.flush()
