"""The same weights run another way: near the same answers, another artifact, any number of rows."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from evergreen.errors import ArtifactError, DataError
from evergreen.training.artifact import MODEL_FILE, PROGRAM_FILE, WEIGHTS_FILE, read_artifact, write_artifact
from evergreen.training.network.model import NetworkShape, Rows, build_network
from evergreen.training.network.pruning import pruned
from evergreen.training.network.variants import VARIANTS
from evergreen.training.predictor import ModelDescription, Predictor, as_variant_of
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.worker import train_rank
from tests.training_factories import a_job, a_training_set, some_rows

VARIES = {"plain": 0.0, "bfloat16": 0.02, "int8": 0.05, "exported": 1e-6, "pruned": 0.6, "onnx": 1e-6, "compiled": 1e-6}
MADE = [pytest.param(name, marks=pytest.mark.slow if name == "compiled" else ()) for name in VARIANTS]
"""A compiler takes half a minute."""


SHAPE = NetworkShape(
    numerics=3, indicators=1, cardinalities=(4,), hidden=(8, 4), dropout=0.0, input_noise=0.0, embedding_bins=4,
    embedding_width=2, members=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    folder = tmp_path_factory.mktemp("job")
    job = a_job(folder, a_training_set(folder))
    train_rank(job, started=time.time())
    return job


@pytest.mark.parametrize("variant", MADE)
def test_a_variant_answers_nearly_as_its_parent(job: TrainingJob, tmp_path: Path, variant: str) -> None:
    parent = Predictor.load(job.model_path)
    digest = write_artifact(tmp_path / "made", as_variant_of(read_artifact(Path(job.model_path)), variant))
    made = Predictor.load(tmp_path / "made", digest)
    frame = some_rows(300)

    for rows in (300, 9, 1):
        columns = {name: frame[name].tolist()[:rows] for name in parent.inputs}
        apart = np.abs(made.score(columns) - parent.score(columns))
        assert apart.max() <= VARIES[variant]
    shape = parent.description.shape
    by_row = Rows(
        torch.randn(9, shape.numerics),
        torch.randint(0, 2, (9, shape.indicators)).float(),
        torch.zeros(9, len(shape.cardinalities), dtype=torch.int64),
    )
    by_column = Rows(*(part.T.contiguous().T for part in (by_row.numeric, by_row.missing, by_row.categories)))
    assert torch.equal(made._network(by_column), made._network(by_row))  # an encoder lays out what it gives as it likes


def test_a_variant_has_its_parents_weights_and_a_digest_of_its_own(job: TrainingJob, tmp_path: Path) -> None:
    files = read_artifact(Path(job.model_path))
    made = {one: as_variant_of(files, one) for one in VARIANTS if one != "compiled"}

    assert {one for one, its in made.items() if its[WEIGHTS_FILE] != files[WEIGHTS_FILE]} == {"pruned"}
    assert {one for one, its in made.items() if PROGRAM_FILE in its} == {"onnx"}
    assert made["plain"] == files
    assert len({write_artifact(tmp_path / name, one) for name, one in made.items()}) == len(made)


def test_units_that_carry_nothing_are_what_pruning_takes() -> None:
    network = build_network(SHAPE, seed=3)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("layers.1.weight"):
                weight[:, [0, 3, 5, 6]] = 0.0
            if name.endswith("deep.weight"):
                weight[:, [1, 2]] = 0.0
    smaller = pruned(network)
    rows = Rows(torch.randn(20, 3), torch.zeros(20, 1), torch.randint(0, 4, (20, 1)))

    assert smaller.shape.hidden == (4, 2)
    assert network.shape.hidden == (8, 4)
    torch.testing.assert_close(smaller(rows), network(rows))


def test_a_program_that_was_altered_or_taken_out_is_refused(job: TrainingJob, tmp_path: Path) -> None:
    files = as_variant_of(read_artifact(Path(job.model_path)), "onnx")
    digest = write_artifact(tmp_path / "made", files)
    (tmp_path / "made" / PROGRAM_FILE).write_bytes(files[PROGRAM_FILE][:-1] + b"!")
    with pytest.raises(ArtifactError, match="its bytes changed"):
        Predictor.load(tmp_path / "made", digest)
    (tmp_path / "made" / PROGRAM_FILE).unlink()
    with pytest.raises(ArtifactError, match="its bytes changed"):
        Predictor.load(tmp_path / "made", digest)
    with pytest.raises(ArtifactError, match="without its program"):
        Predictor.load(tmp_path / "made")


def test_a_program_for_another_machine_is_refused_by_name(job: TrainingJob, tmp_path: Path) -> None:
    files = read_artifact(Path(job.model_path))
    described = ModelDescription.model_validate_json(files[MODEL_FILE])
    elsewhere = described.model_copy(update={"variant": "compiled", "machine": "riscv64 DEFAULT, torch 1.0"})
    made = {**files, MODEL_FILE: elsewhere.model_dump_json().encode(), PROGRAM_FILE: b"never looked at"}
    write_artifact(tmp_path / "made", made)

    with pytest.raises(ArtifactError, match=r"compiled for riscv64 DEFAULT, torch 1\.0, this is"):
        Predictor.load(tmp_path / "made")


@pytest.mark.parametrize(("name", "missing", "told"), [
    ("onnx", "find_spec", r"evergreen\[onnx\]"), ("compiled", "shutil.which", r"C\+\+ compiler"),
])  # fmt: skip
def test_what_cannot_be_made_here_says_what_is_missing(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, name: str, missing: str, told: str
) -> None:
    monkeypatch.setattr(f"evergreen.training.network.programs.{missing}", lambda _: None)

    with pytest.raises(DataError, match=told):
        as_variant_of(read_artifact(Path(job.model_path)), name)


def test_a_variant_nobody_knows_is_refused_by_name(job: TrainingJob) -> None:
    with pytest.raises(DataError, match="no variant 'int4'; ask for one of"):
        as_variant_of(read_artifact(Path(job.model_path)), "int4")
