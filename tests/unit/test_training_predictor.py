"""A finished model scores any row, from any thread, and only if its bytes are its own."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from evergreen.errors import ArtifactError
from evergreen.training.artifact import artifact_digest
from evergreen.training.predictor import Predictor, _load_pyfunc
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.parallel import Place
from evergreen.training.run.worker import train_rank
from tests.factories import a_digest
from tests.training_factories import a_job, a_training_set, some_rows


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("job")
    job = a_job(folder, a_training_set(folder))
    train_rank(job, started=time.time())
    return job


@pytest.fixture(scope="module")
def predictor(job: TrainingJob) -> Predictor:
    return Predictor.load(job.model_path)


@pytest.fixture
def copy(job: TrainingJob, tmp_path: Path) -> Path:
    return shutil.copytree(job.model_path, tmp_path / "copy")


def columns(frame: pd.DataFrame) -> dict[str, list[object]]:
    return {str(name): frame[name].tolist() for name in frame.columns}


def test_rows_score_the_same_alone_and_together(predictor: Predictor) -> None:
    frame = some_rows(200, seed=4)

    together = predictor.score(columns(frame))
    alone = [predictor.score(columns(frame.iloc[i : i + 1]))[0] for i in range(len(frame))]

    assert together.dtype == np.float64
    assert np.allclose(together, alone, atol=1e-6)


def test_the_same_rows_score_the_same_to_the_last_bit(predictor: Predictor, job: TrainingJob) -> None:
    rows = columns(some_rows(300, seed=4))

    assert np.array_equal(predictor.score(rows), predictor.score(rows))
    assert np.array_equal(predictor.score(rows), Predictor.load(job.model_path).score(rows))


def test_lists_arrays_and_pandas_columns_score_alike(predictor: Predictor) -> None:
    frame = some_rows(50, seed=4)

    from_lists = predictor.score(columns(frame))

    assert np.array_equal(from_lists, predictor.score({name: frame[name].to_numpy() for name in predictor.inputs}))
    assert np.array_equal(from_lists, predictor.score({name: frame[name] for name in predictor.inputs}))


def test_missing_numbers_and_unseen_categories_still_get_a_probability(predictor: Predictor) -> None:
    scores = predictor.score(
        {
            "delay": [None, float("nan"), 1e30],
            "count": [None, 1, -5],
            "gap": [None, None, float("inf")],
            "carrier": [None, "unseen", 7],
            "town": ["", float("nan"), "T1"],
        }
    )

    assert ((scores > 0.0) & (scores < 1.0)).all()


def test_no_rows_score_to_no_probabilities(predictor: Predictor) -> None:
    assert predictor.score({name: [] for name in predictor.inputs}).shape == (0,)


def test_threads_share_it(predictor: Predictor) -> None:
    batches = [columns(some_rows(50, seed=i)) for i in range(40)]
    expected = [predictor.score(batch) for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor.score, batches))

    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))


def test_bytes_that_changed_are_refused(copy: Path, job: TrainingJob) -> None:
    digest = artifact_digest(job.model_path)
    description = json.loads((copy / "model.json").read_text())
    description["preprocessing"]["numerics"][0]["scores"][0] += 0.5
    (copy / "model.json").write_text(json.dumps(description))

    with pytest.raises(ArtifactError, match=f"expected {digest}: its bytes changed since it was made"):
        Predictor.load(copy, digest)


def test_the_digest_that_fits_is_accepted(copy: Path) -> None:
    Predictor.load(copy, artifact_digest(copy))


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "weights.safetensors").unlink()

    with pytest.raises(ArtifactError, match=r"no readable weights.safetensors \(No such file"):
        Predictor.load(copy)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_file_that_is_not_what_it_should_be_is_an_artifact_error(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"{}")

    with pytest.raises(ArtifactError):
        Predictor.load(copy)


def test_an_artifact_of_a_later_format_is_refused_by_number(copy: Path) -> None:
    description = json.loads((copy / "model.json").read_text()) | {"format": 99}
    (copy / "model.json").write_text(json.dumps(description))

    with pytest.raises(ArtifactError, match="has format 99, this code reads 2"):
        Predictor.load(copy)


def test_what_mlflow_loads_scores_a_frame_like_the_predictor(predictor: Predictor, job: TrainingJob) -> None:
    frame = some_rows(40, seed=2)

    assert np.array_equal(_load_pyfunc(str(job.model_path)).predict(frame), predictor.score(columns(frame)))


def test_an_unknown_digest_never_loads(copy: Path) -> None:
    with pytest.raises(ArtifactError):
        Predictor.load(copy, a_digest("0"))
