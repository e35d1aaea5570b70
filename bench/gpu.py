"""What a GPU does with the flights' training step, beside its own ceilings: `python -m bench.gpu`.

The engine's step on a batch that lies on the device: eager, compiled, and compiled into CUDA graphs, each in fp32 and in
bf16; eager again as one rank of nccl, for what exchanging gradients costs where there is nobody to exchange with. Beside
it the whole loop, fed by the engine. The ceilings are a large matrix product and a large copy, timed in the same run: the
step's products as a share of the one, the bytes it is fed as a share of the other. Where there is no GPU it says so, in
the table and in `reports/bench/gpu.json`, and measures nothing.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from bench.record import record
from bench.snapshot import snapshot
from bench.training import AS_OF, started
from evergreen.settings import ROOT
from evergreen.spec import TrainConfig, load_spec
from evergreen.training import loop
from evergreen.training.data.dataset import Dataset, open_dataset
from evergreen.training.loop import Batch, TrainState
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.parallel import Place

NOT_RUN = "not run: this machine has no CUDA device"
STEPS, WARM_STEPS = 200, 20
SIDE, COPIED_BYTES = 8192, 1 << 30
Figures = dict[str, float]
Precision = Literal["fp32", "bf16"]


def main() -> None:
    """Measure on the first GPU, or say that there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        report({}, NOT_RUN)
        return
    with TemporaryDirectory() as folder:
        spec = load_spec(ROOT / "models" / "flight_delay.toml")
        job = TrainingJob(training_set=snapshot(arguments.home, AS_OF), spec=spec, code_revision="bench", folder=folder)
        report(measured(job, open_dataset(job, Path(folder) / "rows")), torch.cuda.get_device_name())


def measured(job: TrainingJob, dataset: Dataset) -> Figures:
    """Every figure, on the first GPU."""
    place = Place(rank=0, ranks=1, device=torch.device("cuda", 0))
    figures: Figures = {}
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    for precision in precisions:
        figures[f"matmul_{precision}_tflops"] = matmul_tflops(precision)
        for way in ("eager", "compiled", "graphs"):
            figures[f"{way}_{precision}_rows_per_second"] = step_rate(job, dataset, place, precision, way)
    figures["copy_pinned_gb_per_second"] = copy_gb_per_second()
    figures["nccl_alone_fp32_rows_per_second"] = with_nccl(lambda: step_rate(job, dataset, place, "fp32", "nccl"))
    figures["fed_fp32_rows_per_second"] = step_rate(job, dataset, place, "fp32", "eager", fed=True)
    operations, fed_bytes = per_row(job, dataset, place)
    for precision in precisions:
        rate = figures[f"eager_{precision}_rows_per_second"]
        figures[f"eager_{precision}_share_of_matmul"] = (
            rate * operations / (1e12 * figures[f"matmul_{precision}_tflops"])
        )
    bandwidth = 1e9 * figures["copy_pinned_gb_per_second"]
    figures["fed_share_of_copy"] = figures["fed_fp32_rows_per_second"] * fed_bytes / bandwidth
    return figures


def step_rate(
    job: TrainingJob,
    dataset: Dataset,
    place: Place,
    precision: Precision,
    way: str,
    *,
    fed: bool = False,
    steps: int = STEPS,
) -> float:
    """Rows a second of the engine's step: on one batch that is there already, or `fed` by the engine."""
    config = job.spec.train.model_copy(update={"precision": precision})
    state, order = started(job, dataset, place)
    spread(state, way)
    training = place.hold(dataset.training)

    def batch_of(step: int) -> Batch:
        return loop.make_batch(step, training, order, state.network, config, place)

    there = batch_of(0)
    for step in range(WARM_STEPS):
        take_step(state, batch_of(step) if fed else there, dataset, config, place)
    began = finished(place)
    for step in range(steps):
        take_step(state, batch_of(step) if fed else there, dataset, config, place)
    return steps * there.global_rows / (finished(place) - began)


def spread(state: TrainState, way: str) -> None:
    """Compile the step's network, or join it to nccl."""
    if way == "compiled":
        state.network.compile()
    elif way == "graphs":
        state.network.compile(mode="reduce-overhead")
    elif way == "nccl":
        state.distributed = DistributedDataParallel(state.network, gradient_as_bucket_view=True)


def take_step(state: TrainState, batch: Batch, dataset: Dataset, config: TrainConfig, place: Place) -> None:
    """What `loop.fit` does on the device, without what it does for people and disks."""
    loop.sum_gradients(state, batch, dataset.label, config, place)
    nn.utils.clip_grad_norm_(state.network.parameters(), config.max_norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)


def finished(place: Place) -> float:
    """The time, once the device has done what it was given."""
    if place.device.type == "cuda":
        torch.cuda.synchronize(place.device)
    return time.perf_counter()


def with_nccl(work: Callable[[], float]) -> float:
    """Alone in a group of one."""
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29473"})
    dist.init_process_group("nccl", rank=0, world_size=1)
    try:
        return work()
    finally:
        dist.destroy_process_group()


def per_row(job: TrainingJob, dataset: Dataset, place: Place) -> tuple[float, float]:
    """Operations of the matrix products of one row's step (forward, and twice that back), and bytes that feed it."""
    state, order = started(job, dataset, place)
    layers = [module for module in state.network.modules() if isinstance(module, nn.Linear)]
    batch = loop.make_batch(0, dataset.training, order, state.network, job.spec.train, place)
    parts = (batch.rows.numeric, batch.rows.missing, batch.rows.categories, batch.targets)
    noise = (batch.disturbance.numeric, batch.disturbance.hide, *batch.disturbance.keep)
    fed = sum(tensor.nbytes for tensor in (*parts, *noise)) / batch.global_rows
    return 3 * 2 * float(sum(layer.weight.numel() for layer in layers)), fed


def matmul_tflops(precision: Precision) -> float:
    """Of a product that keeps the whole device busy."""
    kind = torch.float32 if precision == "fp32" else torch.bfloat16
    left, right = (torch.randn(SIDE, SIDE, device="cuda", dtype=kind) for _ in range(2))
    return 2 * SIDE**3 / seconds_of(lambda: left @ right) / 1e12


def copy_gb_per_second() -> float:
    """From pinned memory to the device."""
    source = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(COPIED_BYTES, dtype=torch.uint8, device="cuda")
    return COPIED_BYTES / seconds_of(lambda: target.copy_(source, non_blocking=True)) / 1e9


def seconds_of(work: Callable[[], object], times: int = 10) -> float:
    """The best of some, by the device's own clock."""
    best = float("inf")
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        best = min(best, start.elapsed_time(end) / 1000)
    return best


def report(figures: Figures, note: str) -> None:
    """Print the table and write the figures with what they are of."""
    table = Table("figure", "value", title=note)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3f}" if value < 100 else f"{value:,.0f}")
    Console().print(table)
    path = record("gpu", figures, ("torch",), note)
    Console().print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
