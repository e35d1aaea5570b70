"""The same weights run another way: near the same answers, another artifact, any number of rows."""

import time
from pathlib import Path

import numpy as np
import pytest

from evergreen.errors import DataError
from evergreen.training.artifact import WEIGHTS_FILE, read_artifact, write_artifact
from evergreen.training.job import TrainingJob
from evergreen.training.predictor import Predictor, as_variant_of
from evergreen.training.variants import VARIANTS, Variant
from evergreen.training.worker import train_rank
from tests.training_factories import a_job, a_training_set, some_rows

VARIES: dict[Variant, float] = {"plain": 0.0, "bfloat16": 0.02, "int8": 0.05, "exported": 1e-6}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("job")
    job = a_job(folder, a_training_set(folder))
    train_rank(job, started=time.time())
    return job


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_answers_nearly_as_its_parent(job: TrainingJob, tmp_path: Path, variant: Variant) -> None:
    parent = Predictor.load(job.model_path)
    digest = write_artifact(tmp_path / "made", as_variant_of(read_artifact(Path(job.model_path)), variant))
    made = Predictor.load(tmp_path / "made", digest)
    frame = some_rows(300)

    for rows in (300, 9, 1):
        columns = {name: frame[name].tolist()[:rows] for name in parent.inputs}
        apart = np.abs(made.score(columns) - parent.score(columns))
        assert apart.max() <= VARIES[variant]


def test_a_variant_has_its_parents_weights_and_a_digest_of_its_own(job: TrainingJob, tmp_path: Path) -> None:
    files = read_artifact(Path(job.model_path))
    made = {one: as_variant_of(files, one) for one in VARIANTS}

    assert all(one[WEIGHTS_FILE] == files[WEIGHTS_FILE] for one in made.values())
    assert made["plain"] == files
    assert len({write_artifact(tmp_path / name, one) for name, one in made.items()}) == len(VARIANTS)


def test_a_variant_nobody_knows_is_refused_by_name(job: TrainingJob) -> None:
    with pytest.raises(DataError, match="no variant 'int4'; ask for one of"):
        as_variant_of(read_artifact(Path(job.model_path)), "int4")
