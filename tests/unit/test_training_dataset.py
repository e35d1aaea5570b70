"""Rows are encoded once, in files that every rank maps, and are what encoding them in memory gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evergreen.errors import DataError
from evergreen.training.data import columns, preprocessing
from evergreen.training.data.dataset import open_dataset
from evergreen.training.data.preprocessing import Encoder
from tests.training_factories import a_job, a_training_set, columns_of


def test_mapped_rows_equal_those_encoded_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = a_job(tmp_path, a_training_set(tmp_path, rows=2_000))
    training, validation = columns_of(job.training_set)
    monkeypatch.setattr(columns, "STRETCH_ROWS", 300)  # so that there are several, the last one short
    fitted = preprocessing.fit(training.numerics, training.categoricals, job.training_set.features)

    dataset = open_dataset(job, tmp_path / "rows")

    assert dataset.fitted == fitted
    for part, rows in ((dataset.training, training), (dataset.validation, validation)):
        expected = Encoder(fitted).encode_columns(rows.numerics, rows.categoricals)
        assert np.array_equal(part.rows.numeric.numpy(), expected.numeric)
        assert np.array_equal(part.rows.missing.numpy(), expected.missing)
        assert np.array_equal(part.rows.categories.numpy(), expected.categories)
        assert part.targets[:, 0].tolist() == rows.labels.tolist()


def test_a_second_rank_maps_what_the_first_has_made(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_training_set(tmp_path))
    open_dataset(job, tmp_path / "rows")
    Path(job.training_set.uri).unlink()

    again = open_dataset(job, tmp_path / "rows")

    assert len(again.training) == 1_733


def test_rows_that_were_being_made_when_the_process_died_are_made_again(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_training_set(tmp_path))
    half = tmp_path / ".rows.12345"
    half.mkdir()
    (half / "training.numeric.npy").write_bytes(b"half of it")

    dataset = open_dataset(job, tmp_path / "rows")

    assert len(dataset.training) == 1_733
    assert not half.exists()


def test_thresholds_become_targets_and_what_is_not_known_is_nan(tmp_path: Path) -> None:
    def with_delay(frame: Any) -> Any:
        return frame.assign(auxiliary=frame["delay"].where(frame.index % 3 > 0))

    rows = a_training_set(tmp_path, change=with_delay)
    dataset = open_dataset(a_job(tmp_path, rows, auxiliary_thresholds=[10.0, 30.0]), tmp_path / "rows")

    targets = dataset.training.targets
    known = targets[:, 1].isfinite()
    assert targets.shape == (1_733, 3)
    assert known.equal(targets[:, 2].isfinite())
    assert 0.6 < known.float().mean() < 0.7
    assert (targets[known, 1] >= targets[known, 2]).all()


def test_a_set_that_was_built_before_the_thresholds_were_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"auxiliary_thresholds are set, but the training set has no column"):
        open_dataset(a_job(tmp_path, a_training_set(tmp_path), auxiliary_thresholds=[10.0]), tmp_path / "rows")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(40, 400), stretch=st.integers(1, 500))
def test_however_the_file_is_cut_each_row_arrives_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, rows: int, stretch: int
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    job = a_job(folder, a_training_set(folder, rows=rows))
    whole = columns_of(job.training_set)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "STRETCH_ROWS", stretch)
        dataset = open_dataset(job, folder / "rows")

    for part, expected in zip((dataset.training, dataset.validation), whole, strict=True):
        assert torch.equal(part.targets[:, 0], torch.from_numpy(expected.labels))
