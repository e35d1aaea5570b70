"""Rows a second and peak memory of training, beside the limit and what one would write instead: `python -m bench.training`.

All flights of 2013, the spec's own network, batch and optimizer, four ways: (a) the same step on one batch that lies on the
device already, with nothing fed to it: the limit; (b) Evergreen; (c) plain PyTorch with a `DataLoader`; (d) Lightning. The
peers draw the same noise and dropout with torch. Each way is a process of its own; rounds alternate and the best of them
counts. Once with one core, where each way has one thread, and once with two, where Evergreen and the limit run two ranks
and the peers use torch's two threads. Beside them what feeding alone takes: batches made and thrown away. Then
Evergreen's whole run, from file to artifact, at 1, 3 and 10 times the rows. Prints tables and writes
`reports/bench/training.json`.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bench.memory import begin_peak, peak_mib
from bench.record import record
from bench.snapshot import repeated, snapshot
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec, load_spec
from evergreen.training import loop
from evergreen.training.data.batches import CATEGORY_DROPOUT, BatchOrder
from evergreen.training.data.dataset import Dataset, Part, open_dataset
from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Encoder
from evergreen.training.loop import Batch, TrainState
from evergreen.training.network.model import Disturbance, Network, Rows, build_network, parameter_groups
from evergreen.training.network.objective import summed_losses
from evergreen.training.run.checkpoint import Checkpoints
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.keeper import Keeper, Notice
from evergreen.training.run.launch import train
from evergreen.training.run.parallel import Place, process_group
from evergreen.training.run.worker import shape_of
from evergreen.types import TrainingSet

AS_OF = datetime(2013, 12, 31, tzinfo=UTC)
WARM_STEPS, STEPS = 10, 120
Figures = dict[str, float]


def main() -> None:
    """Run every way in processes of their own and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-scaling", action="store_true", help="leave out the whole runs on more rows")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    training_set = snapshot(arguments.home, AS_OF)
    if arguments.way:
        print(json.dumps(measured(arguments.way, training_set, arguments.cores)))
        return
    figures: Figures = {}
    for cores in (1, 2):
        for round_number in range(arguments.rounds):
            order = list(WAYS) if round_number % 2 == 0 else list(WAYS)[::-1]
            for way in order:
                for name, value in in_processes(way, cores, arguments.home).items():
                    key, best = f"{way}_{cores}_cores_{name}", max if name == "rows_per_second" else min
                    figures[key] = best(value, figures.get(key, value))
    if not arguments.no_scaling:
        figures |= scaling(training_set)
    report(figures)


def in_processes(way: str, cores: int, home: Path) -> Figures:
    """One way's figures; what runs as ranks is started once a rank, and rank 0 tells."""
    ranks = cores if way in RANKED else 1
    command = [sys.executable, "-W", "ignore", "-m", "bench.training", "--way", way, "--home", str(home)]
    threads = {"OMP_NUM_THREADS": str(1 if ranks == cores else cores), "PYTHONPATH": str(ROOT)}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29471", "WORLD_SIZE": str(ranks)}
    processes = [
        subprocess.Popen(
            [*command, "--cores", str(cores)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=os.environ | threads | meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]  # fmt: skip
    told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{way} with {cores} cores failed; run it by hand: {' '.join(command)}")
    of_ranks = [json.loads(text.splitlines()[-1]) for text in told]
    return {"rows_per_second": of_ranks[0]["rows_per_second"], "peak_mib": sum(one["peak_mib"] for one in of_ranks)}


def measured(way: str, training_set: TrainingSet, cores: int) -> Figures:
    """This process's share of one way."""
    torch.set_num_threads(1 if way in RANKED else cores)
    spec = load_spec(ROOT / "models" / "flight_delay.toml")
    # A step is the same whoever made its labels, and trees would take longer than all that is measured.
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"teacher_share": 0.0})})
    with TemporaryDirectory() as folder:
        job = TrainingJob(training_set=training_set, spec=spec, code_revision="bench", folder=folder)
        dataset = open_dataset(job, Path(folder) / "rows")
        begin_peak()  # what reading the rows needed for a moment is the same for all
        seconds = WAYS[way](job, dataset)
    return {"rows_per_second": STEPS * spec.train.batch_size / seconds, "peak_mib": peak_mib()}


def limit(job: TrainingJob, dataset: Dataset) -> float:
    """The same steps on a batch that is there already."""
    with process_group() as place:
        state, order = started(job, dataset, place)
        batch = loop.make_batch(0, dataset.training, order, state.network, job.spec.train, place)
        return timed_fit(state, lambda _: batch, order, job, place)


def evergreen(job: TrainingJob, dataset: Dataset) -> float:
    """The engine's own loop and feed."""
    with process_group() as place:
        state, order = started(job, dataset, place)
        training = place.hold(dataset.training)
        config = job.spec.train
        return timed_fit(
            state,
            lambda step: loop.make_batch(step, training, order, state.network, config, place),
            order,
            job,
            place,
        )


def started(job: TrainingJob, dataset: Dataset, place: Place) -> tuple[TrainState, BatchOrder]:
    """A run at step 0, made as the worker makes it."""
    config = job.spec.train
    order = BatchOrder(len(dataset.training), config.batch_size, config.epochs, config.seed)
    network = build_network(shape_of(Encoder(dataset.fitted), dataset.label, job), config.seed)
    return loop.start(network, config, order, place), order


class _Enough(Exception):
    """Steps enough were timed."""


def timed_fit(
    state: TrainState, batch_of: Callable[[int], Batch], order: BatchOrder, job: TrainingJob, place: Place
) -> float:
    """Seconds of `STEPS` steps of the engine's loop, after some to warm up."""
    clock: dict[int, float] = {}
    checkpoints = Checkpoints(job.checkpoints_path, job.digest, 1, place)
    keeper = Keeper(checkpoints, job.spec.train.checkpoint_seconds, order.steps, place, Notice(job.stop_path))

    def after_step(state: TrainState, loss: float) -> None:  # noqa: ARG001
        clock[state.step] = time.perf_counter()
        if state.step == WARM_STEPS + STEPS:
            raise _Enough

    try:
        loop.fit(state, batch_of, Label(), order, job.spec.train, place, keeper, after_step)
    except _Enough:
        return clock[WARM_STEPS + STEPS] - clock[WARM_STEPS]
    raise SystemExit(f"the bench needs {WARM_STEPS + STEPS} steps, the flights gave {order.steps}")


class PlainStep(torch.nn.Module):
    """The network with noise and dropout drawn by torch, and its loss: what a peer's loop calls."""

    def __init__(self, network: Network, spec: ModelSpec) -> None:
        super().__init__()
        self.network, self.config = network, spec.train

    def forward(self, numeric: Any, missing: Any, categories: Any, targets: Any) -> Any:
        """The mean loss of a batch."""
        rows, shape = len(numeric), self.network.shape
        disturbance = Disturbance(
            torch.randn_like(numeric),
            torch.rand(rows, len(shape.cardinalities)) < CATEGORY_DROPOUT,
            tuple(torch.rand(rows, units) >= shape.dropout for units in shape.hidden),
        )
        logits = self.network(Rows(numeric, missing, categories), disturbance)
        label_loss, auxiliary_loss = summed_losses(Label(), logits, targets)
        return (label_loss + self.config.auxiliary_weight * auxiliary_loss) / rows

    def optimizer(self) -> torch.optim.Optimizer:
        """As the engine's."""
        groups = parameter_groups(self.network, self.config.weight_decay)
        return torch.optim.AdamW(groups, lr=self.config.learning_rate, fused=True)


def loader_of(training: Part, spec: ModelSpec) -> torch.utils.data.DataLoader[Any]:
    """As most would write it: a `TensorDataset`, shuffled, with the loader's default workers."""
    rows = torch.utils.data.TensorDataset(
        training.rows.numeric, training.rows.missing, training.rows.categories, training.targets
    )
    return torch.utils.data.DataLoader(rows, batch_size=spec.train.batch_size, shuffle=True)


def plain_pytorch(job: TrainingJob, dataset: Dataset) -> float:
    """A loop by hand over a `DataLoader`."""
    step = PlainStep(
        build_network(shape_of(Encoder(dataset.fitted), dataset.label, job), job.spec.train.seed), job.spec
    )
    optimizer, began = step.optimizer(), 0.0
    for i, batch in enumerate(loader_of(dataset.training, job.spec)):
        if i == WARM_STEPS:
            began = time.perf_counter()
        if i == WARM_STEPS + STEPS:
            break
        loss = step(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(step.parameters(), job.spec.train.max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def lightning(job: TrainingJob, dataset: Dataset) -> float:
    """The same module under Lightning's trainer, without its logger, bar and checkpoints."""
    from lightning import LightningModule, Trainer

    spec, clock = job.spec, dict[int, float]()

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.step = PlainStep(
                build_network(shape_of(Encoder(dataset.fitted), dataset.label, job), spec.train.seed), spec
            )

        def training_step(self, batch: Any, batch_idx: int) -> Any:  # noqa: ARG002
            return self.step(*batch)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
            clock[batch_idx + 1] = time.perf_counter()

        def configure_optimizers(self) -> Any:
            return self.step.optimizer()

    trainer = Trainer(
        accelerator="cpu", devices=1, max_steps=WARM_STEPS + STEPS, gradient_clip_val=spec.train.max_norm, logger=False,
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), loader_of(dataset.training, spec))
    return clock[WARM_STEPS + STEPS] - clock[WARM_STEPS]


def feed(job: TrainingJob, dataset: Dataset) -> float:
    """Evergreen's batches, noise and dropout included, made and thrown away."""
    with process_group() as place:
        state, order = started(job, dataset, place)
        began = time.perf_counter()
        for step in range(STEPS):
            loop.make_batch(step, dataset.training, order, state.network, job.spec.train, place)
        return time.perf_counter() - began


def feed_pytorch(job: TrainingJob, dataset: Dataset) -> float:
    """The loader's batches, made and thrown away."""
    began = time.perf_counter()
    for i, _ in enumerate(loader_of(dataset.training, job.spec), start=1):
        if i == STEPS:
            break
    return time.perf_counter() - began


WAYS: dict[str, Callable[[TrainingJob, Dataset], float]] = {
    "limit": limit,
    "evergreen": evergreen,
    "pytorch": plain_pytorch,
    "lightning": lightning,
    "feed": feed,
    "feed_pytorch": feed_pytorch,
}
RANKED = ("limit", "evergreen", "feed")
PEERS = ("limit", "evergreen", "pytorch", "lightning")


def scaling(training_set: TrainingSet) -> Figures:
    """The whole run for one epoch, from file to artifact, on 1, 3 and 10 times the rows."""
    spec = load_spec(ROOT / "models" / "flight_delay.toml")
    short = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 1, "checkpoint_seconds": 600.0})})
    figures: Figures = {}
    for times in (1, 3, 10):
        with TemporaryDirectory() as folder:
            rows = repeated(training_set, times, Path(folder))
            job = TrainingJob(training_set=rows, spec=short, code_revision="bench", folder=folder)
            before, began = children_cpu(), time.perf_counter()
            train(job, lambda _: None)
            seconds, trained = time.perf_counter() - began, rows.rows - rows.holdout_rows
        figures |= {
            f"scale_{times}x_rows": trained,
            f"scale_{times}x_us_per_row": 1e6 * seconds / trained,
            f"scale_{times}x_cpu_us_per_row": 1e6 * (children_cpu() - before) / trained,
        }
    return figures


def children_cpu() -> float:
    """CPU seconds of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(figures: Figures) -> None:
    """Print the tables and write the figures, the ratios among them."""
    console = Console()
    for cores in (1, 2):
        table = Table(f"{cores} core{'s' * (cores > 1)}", "rows/s", "Evergreen is", "peak MiB")
        ours = figures[f"evergreen_{cores}_cores_rows_per_second"]
        for way in PEERS:
            rate = figures[f"{way}_{cores}_cores_rows_per_second"]
            figures[f"evergreen_over_{way}_{cores}_cores"] = ours / rate
            table.add_row(
                way, f"{rate:,.0f}", f"{ours / rate:.2f} x", f"{figures[f'{way}_{cores}_cores_peak_mib']:,.0f}"
            )
        console.print(table)
        feeds = [figures[f"{way}_{cores}_cores_rows_per_second"] for way in ("feed", "feed_pytorch")]
        figures[f"feed_over_feed_pytorch_{cores}_cores"] = feeds[0] / feeds[1]
        console.print(
            f"feeding alone: {feeds[0]:,.0f} rows/s, a DataLoader {feeds[1]:,.0f}: {feeds[0] / feeds[1]:.1f} x"
        )
    if "scale_1x_us_per_row" in figures:
        console.print(scaling_table(figures))
    path = record("training", figures, ("torch", "lightning", "numpy", "pyarrow"))
    console.print(f"written to {path.relative_to(ROOT)}")


def scaling_table(figures: Figures) -> Table:
    """Time a row as the rows grow; adds what each is against the first to the figures."""
    table = Table("rows", "µs a row", "CPU µs a row", "against 1x")
    for times in (1, 3, 10):
        each = figures[f"scale_{times}x_us_per_row"]
        figures[f"scale_{times}x_against_1x"] = each / figures["scale_1x_us_per_row"]
        table.add_row(
            f"{figures[f'scale_{times}x_rows']:,.0f}", f"{each:.1f}", f"{figures[f'scale_{times}x_cpu_us_per_row']:.1f}",
            f"{figures[f'scale_{times}x_against_1x']:.2f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main()
