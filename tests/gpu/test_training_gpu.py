"""The paths that need a GPU: run on one, skipped with a reason elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evergreen.training.predictor import Predictor
from evergreen.training.run.launch import train
from evergreen.training.run.parallel import Place, choose_device
from tests.training_factories import a_job, a_training_set, some_rows

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="nccl between ranks needs two GPUs")


def test_a_rank_gets_a_gpu_of_its_own_and_the_cpu_when_there_are_too_few() -> None:
    count = torch.cuda.device_count()

    assert choose_device(0, count) == torch.device("cuda", 0)
    assert choose_device(0, count + 1) == torch.device("cpu")


def test_a_part_arrives_on_the_gpu_unchanged() -> None:
    part = torch.arange(1_000)

    sent = Place(rank=0, ranks=1, device=torch.device("cuda", 0)).send(part)

    assert sent.device.type == "cuda"
    assert torch.equal(sent.cpu(), part)


def test_a_model_trained_on_a_gpu_is_the_cpu_one_up_to_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = a_training_set(tmp_path)
    lines: list[str] = []
    on_gpu = train(a_job(tmp_path / "gpu", rows), lines.append)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    on_cpu = train(a_job(tmp_path / "cpu", rows), lambda _: None)

    assert lines[0].endswith("1 ranks on cuda")
    frame = some_rows(500, seed=9)
    cells = {name: frame[name].to_numpy() for name in rows.features}
    gpu_scores, cpu_scores = (Predictor.load(model.uri, model.digest).score(cells) for model in (on_gpu, on_cpu))
    assert np.allclose(gpu_scores, cpu_scores, atol=5e-3)


@needs_two
def test_two_gpus_train_over_nccl(tmp_path: Path) -> None:
    lines: list[str] = []

    model = train(a_job(tmp_path, a_training_set(tmp_path), ranks=2), lines.append)

    assert model.ranks == 2
    assert lines[0].endswith("2 ranks on cuda")


@pytest.mark.parametrize("train_with", [{"precision": "bf16"}, {"compile": True}, {"accumulate": 3}])
def test_each_switch_trains_on_a_gpu_to_much_the_same_model(tmp_path: Path, train_with: dict[str, Any]) -> None:
    rows = a_training_set(tmp_path)

    plain = train(a_job(tmp_path / "plain", rows), lambda _: None)
    switched = train(a_job(tmp_path / "switched", rows, **train_with), lambda _: None)

    assert switched.curve[-1]["validation_loss"] == pytest.approx(plain.curve[-1]["validation_loss"], abs=2e-2)


@needs_two
def test_two_gpus_share_one_model(tmp_path: Path) -> None:
    rows = a_training_set(tmp_path)

    copied = train(a_job(tmp_path / "ddp", rows, ranks=2), lambda _: None)
    shared = train(a_job(tmp_path / "fsdp", rows, ranks=2, parallelism="fsdp"), lambda _: None)

    assert shared.curve[-1]["validation_loss"] == pytest.approx(copied.curve[-1]["validation_loss"], abs=1e-3)
