"""What of the GPU's bench runs without one: its step, its counts, and that it says it was not run."""

import json
from pathlib import Path

import pytest
import torch

from bench import gpu
from evergreen.training.data.dataset import open_dataset
from evergreen.training.run.parallel import Place
from tests.training_factories import a_job, a_training_set


def test_without_a_gpu_it_says_so_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.record.ROOT", tmp_path)
    monkeypatch.setattr("bench.gpu.ROOT", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["bench.gpu"])

    gpu.main()

    written = json.loads((tmp_path / "reports" / "bench" / "gpu.json").read_text())
    assert (written["note"], written["figures"]) == (gpu.NOT_RUN, {})
    assert "not run" in capsys.readouterr().out


@pytest.mark.parametrize("fed", [False, True])
def test_its_step_is_the_engines(tmp_path: Path, fed: bool) -> None:
    job = a_job(tmp_path, a_training_set(tmp_path), batch_size=16)
    dataset = open_dataset(job, tmp_path / "rows")
    place = Place(rank=0, ranks=1, device=torch.device("cpu"))

    assert gpu.step_rate(job, dataset, place, "bf16", "eager", fed=fed, steps=2) > 0

    operations, fed_bytes = gpu.per_row(job, dataset, place)
    inputs = 3 + 3 * 4 + 1 + 2 * 8  # numerics, their embeddings, an indicator, two embedded categories
    assert operations == 6 * (inputs * 16 + 16 * 8 + 8 + inputs)
    assert fed_bytes > 16
