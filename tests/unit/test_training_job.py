"""A job is named by what shapes its weights, and by nothing else."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evergreen.training.run.job import SPREAD, TrainingJob
from tests.factories import a_digest
from tests.training_factories import a_job, a_training_set


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return a_job(tmp_path, a_training_set(tmp_path))


def changed(job: TrainingJob, table: str, **values: Any) -> TrainingJob:
    part = getattr(job.spec, table).model_copy(update=values)
    return job.model_copy(update={"spec": job.spec.model_copy(update={table: part})})


def test_rows_recipe_seed_and_code_make_another_job(job: TrainingJob) -> None:
    others = [
        job.model_copy(update={"code_revision": "r2"}),
        job.model_copy(update={"training_set": job.training_set.model_copy(update={"digest": a_digest("c")})}),
        job.model_copy(update={"training_set": job.training_set.model_copy(update={"features": {"delay": "numeric"}})}),
        job.model_copy(
            update={"training_set": job.training_set.model_copy(update={"holdout": job.training_set.window})}
        ),
        changed(job, "train", seed=8),
        changed(job, "train", precision="bf16"),
        changed(job, "model", name="other"),
    ]

    assert len({other.digest for other in [job, *others]}) == len(others) + 1


def test_folders_and_rules_of_other_steps_do_not(job: TrainingJob) -> None:
    assert changed(job, "gate", margin=0.5).digest == job.digest
    assert job.model_copy(update={"folder": "/elsewhere"}).digest == job.digest


def test_how_the_work_is_spread_does_not_so_a_run_may_go_on_with_other_ranks(job: TrainingJob) -> None:
    spread: dict[str, Any] = {"ranks": 4, "parallelism": "fsdp", "accumulate": 3, "compile": True, "fused": False}

    assert set(spread) < SPREAD
    assert changed(job, "train", **spread).digest == job.digest
    assert changed(job, "train", checkpoint_seconds=9.0, keep_checkpoints=5).digest == job.digest


def test_it_survives_json(job: TrainingJob) -> None:
    assert TrainingJob.model_validate_json(job.model_dump_json()).digest == job.digest


def test_asking_for_a_training_does_not_import_torch() -> None:
    code = "import sys, evergreen.training.run.launch, evergreen.training.artifact; print('torch' in sys.modules)"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"
