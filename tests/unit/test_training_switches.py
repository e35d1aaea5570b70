"""What `[train]` says of how the work is done changes how it is done, and what comes of it by rounding at most."""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from evergreen.errors import TooLittleMemory, TrainingFailed
from evergreen.training import loop
from evergreen.training.data.batches import BatchOrder
from evergreen.training.data.dataset import open_dataset
from evergreen.training.data.preprocessing import Encoder
from evergreen.training.loop import TrainState
from evergreen.training.network.model import NetworkShape, build_network
from evergreen.training.run import guards
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.parallel import Place
from evergreen.training.run.worker import shape_of, train_rank
from evergreen.types import TrainedModel, TrainingSet
from tests.training_factories import a_job, a_spec, a_training_set

ALONE = Place(rank=0, ranks=1, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return a_training_set(tmp_path_factory.mktemp("rows"), rows=1_000)


def trained(folder: Path, rows: TrainingSet, **train: Any) -> TrainedModel:
    job = a_job(folder, rows, **({"batch_size": 100} | train))
    train_rank(job, time.time())
    return TrainedModel.model_validate_json(job.result_path.read_text())


@pytest.mark.parametrize(
    ("train", "rounding"),
    [
        ({"accumulate": 3}, 1e-5),  # 100 rows do not divide, nor does the last short batch
        ({"accumulate": 128}, 1e-5),  # some pieces have no row at all
        ({"fused": False}, 1e-5),
        ({"precision": "bf16"}, 2e-2),
    ],
)
def test_it_comes_to_the_same_up_to_rounding(
    tmp_path: Path, rows: TrainingSet, train: dict[str, Any], rounding: float
) -> None:
    plain, switched = trained(tmp_path / "plain", rows), trained(tmp_path / "switched", rows, **train)

    for ours, theirs in zip(switched.curve, plain.curve, strict=True):
        assert ours == pytest.approx(theirs, abs=rounding)


def test_bf16_does_compute_with_fewer_digits(tmp_path: Path, rows: TrainingSet) -> None:
    plain, switched = trained(tmp_path / "plain", rows), trained(tmp_path / "bf16", rows, precision="bf16")

    assert switched.curve != plain.curve


@pytest.mark.slow
def test_compiled_it_comes_to_the_same_up_to_rounding(tmp_path: Path, rows: TrainingSet) -> None:
    plain, compiled = trained(tmp_path / "plain", rows), trained(tmp_path / "compiled", rows, compile=True)

    for ours, theirs in zip(compiled.curve, plain.curve, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


def started(job: TrainingJob) -> tuple[TrainState, NetworkShape]:
    dataset = open_dataset(job, job.rows_path)
    shape = shape_of(Encoder(dataset.fitted), dataset.label, job)
    config = job.spec.train
    order = BatchOrder(len(dataset.training), config.batch_size, config.epochs, config.seed)
    return loop.start(build_network(shape, config.seed), config, order, ALONE), shape


def test_a_loss_that_stays_far_above_where_it_began_ends_the_run_and_one_spike_does_not(
    tmp_path: Path, rows: TrainingSet
) -> None:
    state, _ = started(a_job(tmp_path, rows))
    guards.require_sane(state, 0.7, 1.0)
    guards.require_sane(state, 500.0, 1.0)
    guards.require_sane(state, 0.6, 1.0)

    for _ in range(19):
        guards.require_sane(state, 500.0, 1.0)
    with pytest.raises(
        TrainingFailed, match=r"diverged at step 0: loss 500\.0, above 7\.7 for 20 steps.*learning_rate"
    ):
        guards.require_sane(state, 500.0, 1.0)


def test_weights_that_cannot_fit_are_refused_before_they_are_made(
    tmp_path: Path, rows: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, shape = started(a_job(tmp_path, rows))
    monkeypatch.setattr(guards, "available_bytes", lambda: 1_000)

    with pytest.raises(TooLittleMemory, match=r"needs at least .* available to 1 ranks.*\[train\]\.hidden"):
        guards.require_memory(shape, a_spec().train, ALONE)


def test_memory_that_runs_out_on_the_way_is_named() -> None:
    named = guards.out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))

    assert named is not None
    assert "Raise [train].accumulate or lower batch_size" in str(named)
    assert guards.out_of_memory(ValueError("something else")) is None


def test_all_parameters_of_a_shape_are_counted(tmp_path: Path, rows: TrainingSet) -> None:
    state, shape = started(a_job(tmp_path, rows))

    network: nn.Module = state.network
    assert guards.parameters_of(shape) == sum(parameter.numel() for parameter in network.parameters())
