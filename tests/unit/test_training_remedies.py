"""Cures cheaper than a retrain: a champion tuned further, and one whose answers are moved."""

import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import ArtifactError, DataError
from evergreen.recalibration import recalibrated
from evergreen.training.data.preprocessing import code, numbers
from evergreen.training.predictor import Predictor
from evergreen.training.recalibrate import recalibrate, unlearnt
from evergreen.training.run.job import Base, TrainingJob
from evergreen.training.run.worker import train_rank
from evergreen.types import Remedy, TrainedModel, TrainingSet, Window
from tests.training_factories import FEATURES, START, a_job, a_training_set, some_rows

LEARNT = Window(start=START + timedelta(days=15), end=START + timedelta(days=18))
"""The champion's holdout: its weights know the fifteen days before."""


def trained(job: TrainingJob) -> TrainedModel:
    train_rank(job, time.time())
    return TrainedModel.model_validate_json(job.result_path.read_text())


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return a_training_set(tmp_path_factory.mktemp("rows"))


@pytest.fixture(scope="module")
def champion(rows: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    known = rows.model_copy(update={"holdout": LEARNT})
    return trained(a_job(tmp_path_factory.mktemp("champion"), known))


def tuning(folder: Path, rows: TrainingSet, champion: TrainedModel, **train: object) -> TrainingJob:
    base = Base(uri=champion.uri, digest=champion.digest, since=START + timedelta(days=20))
    return a_job(folder, rows, **train).model_copy(update={"base": base})


def scores(model: TrainedModel) -> np.ndarray:
    frame = some_rows(300, seed=9)
    return Predictor.load(model.uri, model.digest).score({str(name): frame[name] for name in frame.columns})


def test_a_fine_tune_begins_with_the_champions_weights(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    gentle = trained(tuning(tmp_path / "gentle", rows, champion, epochs=1, learning_rate=1e-9))
    bold = trained(tuning(tmp_path / "bold", rows, champion, epochs=1, learning_rate=1e-2))

    assert scores(gentle) == pytest.approx(scores(champion), abs=1e-4)
    assert np.abs(scores(bold) - scores(champion)).max() > 0.01


def test_a_fine_tune_learns_from_the_newest_rows_alone_and_keeps_the_champions_recipe(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    job = tuning(tmp_path, rows, champion, epochs=1)

    found = trained(job)

    seven_days = 2_000 * 7 / 30 - 2_000 / 30  # one day of them validates
    assert found.steps == -(-int(seven_days) // job.spec.train.batch_size)
    recipes = [Predictor.load(model.uri).description for model in (found, champion)]
    assert recipes[0].preprocessing == recipes[1].preprocessing
    assert recipes[0].lineage["base"] == champion.digest


def test_jobs_that_differ_in_what_they_begin_with_are_two(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    job = tuning(tmp_path, rows, champion)
    other = job.model_copy(update={"base": job.base.model_copy(update={"uri": "elsewhere"}) if job.base else None})

    assert job.digest != a_job(tmp_path, rows).digest
    assert other.digest == job.digest  # where the same bytes lie shapes nothing


def test_a_network_of_another_shape_is_refused(tmp_path: Path, rows: TrainingSet, champion: TrainedModel) -> None:
    with pytest.raises(DataError, match=r"its weights fit no other\. Retrain it from the beginning"):
        train_rank(tuning(tmp_path, rows, champion, hidden=[4]), time.time())


def test_nothing_new_to_learn_is_said(tmp_path: Path, rows: TrainingSet, champion: TrainedModel) -> None:
    late = Base(uri=champion.uri, digest=champion.digest, since=rows.holdout.start)
    with pytest.raises(DataError, match="nothing new to learn"):
        train_rank(a_job(tmp_path, rows).model_copy(update={"base": late}), time.time())


def recalibrated_on(folder: Path, rows: TrainingSet, champion: TrainedModel) -> TrainedModel:
    frame = pd.read_parquet(rows.uri)
    frame["label"] = np.maximum(frame["label"], np.arange(len(frame)) % 3 == 0)  # since then everything is likelier
    fresh = unlearnt(frame, rows, champion, days=28)
    return recalibrate(Path(champion.uri), champion, rows, fresh, folder, "r2")


def test_a_recalibrated_version_is_the_champion_with_its_answers_moved(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    found = recalibrated_on(tmp_path, rows, champion)

    predictor = Predictor.load(found.uri, found.digest)
    moved = predictor.description.recalibration
    assert moved is not None
    assert moved.intercept > 0.2
    assert scores(found) == pytest.approx(recalibrated(scores(champion), moved))
    assert (found.remedy, found.base, found.steps) == (Remedy.RECALIBRATE, champion.digest, 0)
    assert found.trained_anew_until == found.weights_until == LEARNT.start
    assert found.cost is not None


def test_the_same_recalibration_is_the_same_artifact_and_a_second_one_does_not_pile_up(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    once = recalibrated_on(tmp_path / "a", rows, champion)
    again = recalibrated_on(tmp_path / "b", rows, champion)
    on_top = recalibrated_on(tmp_path / "c", rows, once)

    assert again.digest == once.digest
    assert scores(on_top) == pytest.approx(scores(once), abs=1e-9)
    assert on_top.trained_anew_until == champion.trained_anew_until


def test_a_recalibration_learns_from_no_row_that_the_weights_know_nor_from_the_holdout(
    rows: TrainingSet, champion: TrainedModel
) -> None:
    frame = pd.read_parquet(rows.uri)

    all_of_them, few = (unlearnt(frame, rows, champion, days)["event_timestamp"] for days in (28, 4))

    assert all_of_them.min() >= pd.Timestamp(LEARNT.start)
    assert few.min() >= pd.Timestamp(rows.holdout.start - timedelta(days=4))
    assert max(all_of_them.max(), few.max()) < pd.Timestamp(rows.holdout.start)


def test_other_bytes_than_the_champions_are_not_recalibrated(
    tmp_path: Path, rows: TrainingSet, champion: TrainedModel
) -> None:
    other = champion.model_copy(update={"digest": "sha256:" + "0" * 64})
    with pytest.raises(ArtifactError, match="its bytes changed"):
        recalibrate(Path(champion.uri), other, rows, pd.read_parquet(rows.uri), tmp_path, "r2")


def test_three_classes_cannot_be_moved_so(tmp_path: Path) -> None:
    rows = a_training_set(tmp_path, task="multiclass")
    made = trained(a_job(tmp_path, rows, task="multiclass"))
    with pytest.raises(DataError, match="Ask for remedy=fine_tune"):
        recalibrate(Path(made.uri), made, rows, pd.read_parquet(rows.uri), tmp_path / "r", "r2")


def test_columnar_rows_are_scored_as_cells_are(champion: TrainedModel) -> None:
    frame = some_rows(500, seed=3)
    predictor = Predictor.load(champion.uri)
    frame.loc[::7, "carrier"] = None

    columnar = predictor.score_columns(
        {name: numbers(name, frame[name]) for name, kind in FEATURES.items() if kind == "numeric"},
        {name: code(frame[name]) for name, kind in FEATURES.items() if kind == "categorical"},
    )

    assert np.array_equal(columnar, predictor.score({str(name): frame[name] for name in frame.columns}))
