"""The real MLflow while a model trains: one run from the first step to the version."""

from pathlib import Path

import pytest

from evergreen.adapters.mlflow.registry import ModelRegistry
from evergreen.adapters.mlflow.training_runs import TrainingRun
from evergreen.settings import Settings
from evergreen.training.run.job import TrainingJob
from evergreen.types import Cost, Progress, TrainedModel
from tests.adapters.test_mlflow import (
    SPEC,
    DyingClient,
    Killed,
    a_candidate,
    client,
    counts,
    empty_database,
    register,
    registry,
    settings,
)
from tests.factories import a_gate_decision, a_training_set

COST = Cost(device="cpu", devices=2, seconds=12.5, device_seconds=21.0, price=0.002, currency="EUR")


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(training_set=a_training_set(), spec=SPEC, code_revision="r1", folder=str(tmp_path))


@pytest.fixture
def run(registry: ModelRegistry, job: TrainingJob) -> TrainingRun:
    return TrainingRun(registry, job, {"prefect.flow_run_id": "f01"})


def row(step: int, loss: float = 0.5) -> Progress:
    return Progress(step=step, steps=40, epoch=1, epochs=2, loss=loss, learning_rate=1e-3, memory_bytes=1_000)


def trained(job: TrainingJob, folder: Path, content: str = "a") -> TrainedModel:
    return a_candidate(folder, content).model_copy(update={"job": job.digest, "cost": COST})


def the_run(settings: Settings) -> str:
    mine = client(settings)
    (found,) = mine.search_runs([mine.get_experiment_by_name("flight_delay").experiment_id])
    return str(found.info.run_id)


def test_a_run_is_there_and_running_from_the_first_row(run: TrainingRun, settings: Settings, job: TrainingJob) -> None:
    run.tell([row(0)])

    found = client(settings).get_run(the_run(settings))
    assert found.info.status == "RUNNING"
    assert found.data.tags["evergreen.job"] == job.digest
    assert found.data.tags["prefect.flow_run_id"] == "f01"
    assert found.data.params["train.epochs"] == "4"
    assert found.data.metrics["live/memory_bytes"] == 1_000


def test_the_rows_are_points_of_live_metrics(run: TrainingRun, settings: Settings) -> None:
    run.tell([row(10, 0.6), row(20, 0.55)])
    run.tell([row(30, 0.52)])

    points = client(settings).get_metric_history(the_run(settings), "live/loss")
    assert [(point.step, point.value) for point in points] == [(10, 0.6), (20, 0.55), (30, 0.52)]
    assert "live/gpu_use" not in client(settings).get_run(the_run(settings)).data.metrics


def test_a_job_that_goes_on_goes_on_in_its_run_and_tells_nothing_twice(
    run: TrainingRun, registry: ModelRegistry, settings: Settings, job: TrainingJob
) -> None:
    run.tell([row(10), row(20)])

    again = TrainingRun(registry, job, {"prefect.flow_run_id": "f02"})
    again.tell([row(10), row(20), row(30)])

    points = client(settings).get_metric_history(the_run(settings), "live/loss")
    assert [point.step for point in points] == [10, 20, 30]
    assert client(settings).get_run(the_run(settings)).data.tags["prefect.flow_run_id"] == "f02"


def test_register_fills_the_run_the_candidate_was_trained_in(
    run: TrainingRun, registry: ModelRegistry, settings: Settings, job: TrainingJob, tmp_path: Path
) -> None:
    run.tell([row(10)])

    version = register(registry, trained(job, tmp_path))

    assert version.run_id == the_run(settings)
    found = client(settings).get_run(version.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["evergreen.gate"] == "passed"
    assert {name: found.data.metrics[name] for name in found.data.metrics if name.startswith("cost/")} == {
        "cost/devices": 2,
        "cost/seconds": 12.5,
        "cost/device_seconds": 21.0,
        "cost/price": 0.002,
    }
    assert (found.data.tags["evergreen.device"], found.data.tags["evergreen.currency"]) == ("cpu", "EUR")


def test_another_verdict_about_the_same_training_is_a_run_of_its_own(
    run: TrainingRun, registry: ModelRegistry, settings: Settings, job: TrainingJob, tmp_path: Path
) -> None:
    run.tell([row(10)])
    candidate = trained(job, tmp_path)
    refused = register(registry, candidate, decision=a_gate_decision(passed=False, reason="too bad"))

    passed = register(registry, candidate)

    assert refused.run_id != passed.run_id
    assert counts(settings)["runs"] == 2


@pytest.mark.parametrize("calls", range(1, 5))
def test_killed_while_it_starts_or_is_claimed_there_is_one_run(
    registry: ModelRegistry, settings: Settings, job: TrainingJob, tmp_path: Path, calls: int
) -> None:
    real = registry._client
    registry.experiment("flight_delay")
    registry._client = DyingClient(real, calls)
    try:
        for step in (10, 20, 30):
            TrainingRun(registry, job, {}).tell([row(step)])
        register(registry, trained(job, tmp_path))
    except Killed:
        registry._client = real

    TrainingRun(registry, job, {}).tell([row(40)])
    register(registry, trained(job, tmp_path))

    assert counts(settings) == {"runs": 1, "models": 1, "versions": 1}


def test_a_training_that_breaks_says_why_and_what_it_cost_and_may_go_on(
    run: TrainingRun, registry: ModelRegistry, settings: Settings, job: TrainingJob
) -> None:
    run.tell([row(10)])
    run.ended("FAILED", "training diverged at step 12", COST)

    broken = client(settings).get_run(the_run(settings))
    assert broken.info.status == "FAILED"
    assert broken.data.tags["evergreen.reason"] == "training diverged at step 12"
    assert broken.data.metrics["cost/device_seconds"] == 21.0

    TrainingRun(registry, job, {}).tell([row(20)])
    on = client(settings).get_run(the_run(settings))
    assert on.info.status == "RUNNING"
    assert "evergreen.reason" not in on.data.tags
