"""Boosted trees that teach: steadier than labels, blind to the day they speak of, and only where they are asked."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evergreen.adapters import boosted_trees
from evergreen.errors import DataError, SpecError
from evergreen.training.data.columns import Snapshot
from evergreen.training.data.dataset import open_dataset
from evergreen.training.data.teacher import Teacher
from evergreen.types import Task, TrainingSet
from tests.training_factories import a_job, a_spec, a_training_set, columns_of

pytest.importorskip("lightgbm")


def first_targets(folder: Path, rows: TrainingSet, **train: Any) -> tuple[Any, Any]:
    """(rows,) of the rows that train, and of those that validate."""
    job = a_job(folder, rows, **train)
    dataset = open_dataset(job, job.rows_path)
    return dataset.training.targets[:, 0].numpy(), dataset.validation.targets[:, 0].numpy()


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_share_of_what_is_learnt_is_what_the_trees_say(tmp_path: Path, task: Task) -> None:
    rows = a_training_set(tmp_path, task=task)
    plain, validated = first_targets(tmp_path, rows, task=task)
    quarter, unmoved = first_targets(tmp_path, rows, task=task, teacher_share=0.25)
    said, _ = first_targets(tmp_path, rows, task=task, teacher_share=1.0)

    assert quarter == pytest.approx(0.75 * plain + 0.25 * said, abs=1e-5)
    assert np.array_equal(unmoved, validated)
    assert 0.1 < np.corrcoef(plain, said)[0, 1] < 0.99
    if task == "binary":
        assert said.min() > 0.0
        assert said.max() < 1.0


def test_trees_know_nothing_of_the_day_they_speak_of(tmp_path: Path) -> None:
    """With the labels of one day turned round, what is said of that very day stays as it was, but for when to stop."""

    def turned(frame: pd.DataFrame) -> pd.DataFrame:
        day = frame["event_timestamp"].dt.day == 7
        return frame.assign(label=frame["label"].where(~day, 1 - frame["label"]))

    said: dict[str, Any] = {}
    for name, change in (("as it was", lambda frame: frame), ("turned", turned)):
        (tmp_path / name).mkdir()
        job = a_job(tmp_path, a_training_set(tmp_path / name, change=change), teacher_share=1.0)
        snapshot = Snapshot(job.training_set)
        days = snapshot.days[snapshot.trains]
        said[name] = Teacher(job, snapshot).taught(columns_of(job.training_set)[0], days).labels
    moved = np.abs(said["turned"] - said["as it was"])
    fold, of_the_day = boosted_trees.fold_of(days), days == np.datetime64("2013-01-07")

    assert moved[of_the_day].mean() < 0.5 * moved[fold != fold[of_the_day][0]].mean()


def test_the_same_rows_teach_the_same_to_the_last_bit(tmp_path: Path) -> None:
    rows = a_training_set(tmp_path)
    once, again = (first_targets(tmp_path / name, rows, teacher_share=0.5)[0] for name in ("once", "again"))

    assert once.tobytes() == again.tobytes()


def test_a_window_of_two_days_has_no_third_to_learn_from(tmp_path: Path) -> None:
    few = a_training_set(tmp_path, change=lambda frame: frame[~frame["event_timestamp"].dt.day.between(3, 27)])
    job = a_job(tmp_path, few, teacher_share=0.5)

    with pytest.raises(DataError, match=r"\[train\]\.teacher_share needs 3 days in a row"):
        open_dataset(job, job.rows_path)


def test_without_lightgbm_the_key_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted_trees, "installed", lambda: False)
    job = a_job(tmp_path, a_training_set(tmp_path), teacher_share=0.5)

    with pytest.raises(SpecError, match=r"evergreen\[lightgbm\]"):
        open_dataset(job, job.rows_path)


def test_classes_are_not_taught_and_a_fine_tune_learns_from_labels_alone() -> None:
    with pytest.raises(SpecError, match=r'\[train\]\.teacher_share: no use to \[model\]\.task = "multiclass"'):
        a_spec(task="multiclass", classes=("a", "b"), teacher_share=0.5)
    assert a_spec(teacher_share=0.5).fine_tuning.train.teacher_share == 0.0


def test_the_release_of_the_trees_is_part_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = a_training_set(tmp_path)
    with_trees, without = (a_job(tmp_path, rows, teacher_share=share) for share in (0.5, 0.0))
    assert with_trees.lineage["lightgbm"] == boosted_trees.release()
    digests = with_trees.digest, without.digest
    monkeypatch.setattr(boosted_trees, "release", lambda: "0.0")

    assert with_trees.digest != digests[0]
    assert without.digest == digests[1]
