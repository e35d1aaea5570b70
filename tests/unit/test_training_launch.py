"""Training in processes of its own: what it makes, what it repeats, and what it says when it cannot.

Real processes and real ranks; a run takes some three seconds, so tests share what they can.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError, TrainingAbandoned, TrainingFailed
from evergreen.evaluation import score_rows
from evergreen.training.artifact import artifact_digest
from evergreen.training.data.columns import Snapshot
from evergreen.training.predictor import Predictor
from evergreen.training.run import launch
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.training.run.spending import spent
from evergreen.types import Progress, Rates, TrainedModel, TrainingSet
from tests.training_factories import a_job, a_training_set, some_rows


@pytest.fixture(scope="module", autouse=True)
def on_the_cpu() -> Iterator[None]:
    """Also where there is a GPU: bit for bit is promised on CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    # 1,931 rows train: with batches of 128 the last has 11, which two ranks cannot share evenly.
    return a_training_set(tmp_path_factory.mktemp("rows"), rows=2_227)


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    """What `finished` told of itself."""
    return []


@pytest.fixture(scope="module")
def finished(
    rows: TrainingSet, tmp_path_factory: pytest.TempPathFactory, progress: list[Progress]
) -> tuple[TrainingJob, TrainedModel, list[str]]:
    job = a_job(tmp_path_factory.mktemp("jobs"), rows, ranks=2)
    lines: list[str] = []
    return job, train(job, lines.append, progress.append, RATES), lines


RATES = Rates(cpu_hour=1.0)


def scores_of(model: TrainedModel, frame: pd.DataFrame) -> np.ndarray:
    predictor = Predictor.load(model.uri, model.digest)
    return predictor.score({name: frame[name].to_numpy() for name in predictor.inputs})


def test_the_model_has_learnt_something_the_holdout_confirms(
    finished: tuple[TrainingJob, TrainedModel, list[str]], rows: TrainingSet
) -> None:
    _, model, _ = finished
    frame = pd.read_parquet(rows.uri)
    holdout = frame[frame["event_timestamp"] >= rows.holdout.start]

    assert score_rows(holdout["label"], scores_of(model, holdout))["auc"] > 0.65


def test_the_result_tells_how_it_was_made(finished: tuple[TrainingJob, TrainedModel, list[str]]) -> None:
    job, model, _ = finished

    assert (model.training_set, model.spec_digest, model.seed) == (job.training_set, job.spec.digest, 7)
    assert (model.steps, model.ranks, model.resumed_from_step) == (32, 2, 0)
    assert [(row["step"], row["epoch"]) for row in model.curve] == [(16, 1), (32, 2)]
    assert model.curve[-1]["train_loss"] < model.curve[0]["train_loss"]
    assert model.digest == artifact_digest(job.model_path)
    assert sorted(path.name for path in job.model_path.iterdir()) == ["model.json", "weights.safetensors"]


def test_its_lines_arrive_one_by_one_and_without_noise(finished: tuple[TrainingJob, TrainedModel, list[str]]) -> None:
    _, _, lines = finished

    assert lines[0] == (
        "training on 1,931 rows, validating on 74: 3 numeric and 2 categorical inputs, 32 steps, 2 ranks on cpu"
    )
    assert any(line.startswith("step 16/32 epoch 1 loss 0.") and " rows/s " in line for line in lines)
    known = ("training on", "step ", "epoch ")
    assert all(line.startswith(known) for line in lines)


def test_it_tells_how_far_it_is_from_the_first_step_to_the_last(
    finished: tuple[TrainingJob, TrainedModel, list[str]], progress: list[Progress]
) -> None:
    _, model, _ = finished

    assert [row.step for row in progress if row.step % 16 == 0] == [0, 16, 32]
    assert (progress[0].epoch, progress[0].loss) == (0, None)
    ends = [row for row in progress if row.validation_loss is not None]
    assert [row.validation_loss for row in ends] == [row["validation_loss"] for row in model.curve]
    assert all(row.rows_per_second > 0 and row.memory_bytes > 1e7 and row.learning_rate > 0 for row in ends)


def test_it_states_what_all_its_ranks_cost(finished: tuple[TrainingJob, TrainedModel, list[str]]) -> None:
    _, model, _ = finished

    assert model.cost is not None
    assert (model.cost.device, model.cost.devices) == ("cpu", 2)
    assert model.cost.device_seconds > 1.0, "importing torch alone takes more"
    assert model.cost.seconds >= model.seconds - 0.5
    assert model.cost.price == pytest.approx(model.cost.device_seconds / 3600)


def test_a_finished_job_is_not_trained_again(finished: tuple[TrainingJob, TrainedModel, list[str]]) -> None:
    job, model, _ = finished
    lines: list[str] = []

    assert train(job, lines.append, rates=RATES) == model
    assert lines == []


def test_who_asks_for_a_job_is_told_what_it_used_for_them_and_not_what_it_had_used_before(
    rows: TrainingSet, tmp_path: Path
) -> None:
    accounts = [tmp_path / "first", tmp_path / "second"]

    model, again = (
        train(a_job(tmp_path, rows).model_copy(update={"account": str(account)}), lambda _: None)
        for account in accounts
    )

    assert spent(accounts[0], Rates()) == model.cost
    assert spent(accounts[1], Rates()) is None
    assert again.cost == model.cost, "the version's own cost is the whole job's"


def test_a_change_of_the_spec_that_does_not_shape_the_weights_finds_the_same_model(
    finished: tuple[TrainingJob, TrainedModel, list[str]],
) -> None:
    job, model, _ = finished
    stricter = job.spec.model_copy(update={"gate": job.spec.gate.model_copy(update={"margin": 0.0})})

    again = train(job.model_copy(update={"spec": stricter}))

    assert again.digest == model.digest
    assert again.spec_digest == stricter.digest != model.spec_digest


def test_the_same_seed_and_ranks_give_the_same_bytes_in_another_folder(
    finished: tuple[TrainingJob, TrainedModel, list[str]], tmp_path: Path
) -> None:
    job, model, _ = finished

    assert train(job.model_copy(update={"folder": str(tmp_path)}), lambda _: None).digest == model.digest


@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_number_of_ranks_changes_nothing_but_rounding(
    finished: tuple[TrainingJob, TrainedModel, list[str]], rows: TrainingSet, tmp_path: Path, ranks: int
) -> None:
    _, two, _ = finished

    other = train(a_job(tmp_path, rows, ranks=ranks), lambda _: None)

    frame = some_rows(500, seed=9)
    assert np.allclose(scores_of(other, frame), scores_of(two, frame), atol=1e-4)
    assert [row["train_loss"] for row in other.curve] == pytest.approx(
        [row["train_loss"] for row in two.curve], abs=1e-5
    )


def test_a_model_that_was_altered_is_made_again_from_its_last_checkpoint(
    finished: tuple[TrainingJob, TrainedModel, list[str]], tmp_path: Path
) -> None:
    job, first, _ = finished
    copy = job.model_copy(update={"folder": str(tmp_path)})
    shutil.copytree(job.path, copy.path)
    (copy.model_path / "weights.safetensors").write_bytes(b"something else")
    lines: list[str] = []

    second = train(copy, lines.append)

    assert "is not the one that was made there; making it again" in lines[0]
    assert (second.digest, second.resumed_from_step) == (first.digest, 32)
    assert second.curve == first.curve


def stopped(job: TrainingJob, stop: Callable[[Progress], None]) -> None:
    """Have who watches stop a training, with something to go on from.

    Where so few rows were learnt before the signal came, or before the disk had a checkpoint, it begins again from nothing.
    """
    while job.result_path.exists() or not list(job.checkpoints_path.glob("step-*")):
        shutil.rmtree(job.path, ignore_errors=True)
        with pytest.raises(TrainingAbandoned):
            train(job, lambda _: None, stop)


def test_who_watches_may_stop_it_and_the_next_goes_on_to_the_same_bytes(rows: TrainingSet, tmp_path: Path) -> None:
    # So many epochs that it is stopped long before the last.
    job = a_job(tmp_path, rows, epochs=40, abandon_margin=0.1, checkpoint_seconds=0.0)
    ends: list[Progress] = []

    def stop(progress: Progress) -> None:
        if progress.validation_by_day:
            ends.append(progress)
            raise TrainingAbandoned("given up")

    stopped(job, stop)
    model = train(job, lambda _: None)

    end = ends[-1]
    days = end.validation_by_day
    assert sum(day.loss_sum for day in days) / sum(day.rows for day in days) == pytest.approx(end.validation_loss)
    assert 0 < model.resumed_from_step < model.steps
    assert model.job == job.digest
    assert job.digest == a_job(tmp_path, rows, epochs=40, checkpoint_seconds=0.0).digest, (
        "when to give up shapes nothing"
    )


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return a_training_set(tmp_path_factory.mktemp("few"), rows=400)


OVERFITS = {"epochs": 12, "hidden": [64], "learning_rate": 0.03, "dropout": 0.0, "input_noise": 0.0, "batch_size": 64}


def test_where_the_spec_asks_for_it_the_best_epoch_is_kept_also_by_a_run_that_went_on_after_it(
    few_rows: TrainingSet, tmp_path: Path
) -> None:
    asked = OVERFITS | {"checkpoint_seconds": 0.0, "keep": "best"}
    whole, broken = (a_job(tmp_path / name, few_rows, **asked) for name in ("a", "b"))
    lines: list[str] = []

    model = train(whole, lines.append)

    losses = [row["validation_loss"] for row in model.curve]
    best = losses.index(min(losses)) + 1
    assert best < len(losses), "these rows are learnt by heart"
    assert f"epoch {best} did best on the validation rows; its weights are kept ([train].keep)" in lines
    frame = pd.read_parquet(few_rows.uri)[Snapshot(few_rows).validates]
    assert score_rows(frame["label"].to_numpy(), scores_of(model, frame))["log_loss"] == pytest.approx(
        min(losses), abs=1e-5
    )

    def stop(progress: Progress) -> None:
        if progress.epoch == best + 2:
            raise TrainingAbandoned("given up")

    stopped(broken, stop)
    again = train(broken, lambda _: None)
    assert again.resumed_from_step > 0
    assert again.digest == model.digest


def test_two_who_ask_at_once_get_one_training(rows: TrainingSet, tmp_path: Path) -> None:
    job = a_job(tmp_path, rows)
    lines: list[str] = []
    results: list[TrainedModel] = []
    askers = [threading.Thread(target=lambda: results.append(train(job, lines.append))) for _ in range(2)]

    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()

    assert results[0] == results[1]
    assert sum(line.startswith("training on") for line in lines) == 1
    assert sum(line.startswith("waiting: ") for line in lines) == 1


def test_a_run_cut_down_when_its_model_was_made_gives_the_model(
    rows: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = launch._run

    def cut_down_at_the_end(*arguments: Any) -> None:
        run(*arguments)
        raise TrainingFailed("ended with signal SIGTERM")

    monkeypatch.setattr(launch, "_run", cut_down_at_the_end)
    job = a_job(tmp_path, rows, ranks=1)

    assert train(job, lambda _: None).digest == artifact_digest(job.model_path)


def test_an_error_in_the_rows_crosses_the_processes_as_what_it_is(tmp_path: Path) -> None:
    unlabelled = a_training_set(tmp_path, change=lambda frame: frame.drop(columns="label"))

    with pytest.raises(DataError, match=r"lacks columns \['label'\]"):
        train(a_job(tmp_path, unlabelled, ranks=2), lambda _: None)


def test_a_loss_that_is_not_finite_stops_all_ranks_and_names_the_step_and_the_rate(
    rows: TrainingSet, tmp_path: Path
) -> None:
    job = a_job(tmp_path, rows, ranks=2, learning_rate=1e30).model_copy(update={"account": str(tmp_path / "account")})

    with pytest.raises(
        TrainingFailed, match=r"diverged at step \d+: loss .*learning rate .*Lower \[train\].learning_rate"
    ):
        train(job, lambda _: None)
    used = spent(tmp_path / "account", Rates())
    assert used is not None
    assert (used.devices, used.device_seconds > 0.5) == (2, True), "what failed is paid for too"


def test_a_breakdown_nobody_foresaw_brings_its_last_lines(rows: TrainingSet, tmp_path: Path) -> None:
    job = a_job(tmp_path, rows.model_copy(update={"uri": str(tmp_path / "gone.parquet")}))

    with pytest.raises(
        TrainingFailed, match=r"(?s)ended with status 3 .*FileNotFoundError.*gone\.parquet.*Run it again"
    ):
        train(job, lambda _: None)


def test_a_column_that_carries_nothing_is_dropped_in_the_open(tmp_path: Path) -> None:
    job = a_job(tmp_path, a_training_set(tmp_path, change=lambda frame: frame.assign(gap=np.nan, town="T")))
    lines: list[str] = []

    model = train(job, lines.append)

    assert "dropped feature 'gap': missing in every training row" in lines
    assert "dropped feature 'town': always 'T' in the training rows" in lines
    predictor = Predictor.load(model.uri)
    assert set(predictor.description.preprocessing.dropped) == {"gap", "town"}
    assert list(predictor.inputs) == ["delay", "count", "gap", "carrier", "town"]
    assert predictor.score({"delay": [5.0], "count": [1], "carrier": ["C1"]}).shape == (1,)
