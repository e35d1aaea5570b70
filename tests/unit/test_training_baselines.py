"""The plain models beside a candidate: the same rows and holdout, trained once, and never a reason to fail."""

from pathlib import Path

import pandas as pd
import pytest

from evergreen.adapters import boosted_trees
from evergreen.adapters.feature_tables import content_digest
from evergreen.errors import DataError
from evergreen.training.baselines import train_baselines
from evergreen.types import Baselines, TrainingSet
from tests.training_factories import a_spec, a_training_set, some_rows


@pytest.fixture
def training_set(tmp_path: Path) -> TrainingSet:
    return a_training_set(tmp_path, rows=1_200, digest=content_digest(some_rows(1_200)))


def test_each_is_judged_on_the_holdout_that_judges_the_candidate(training_set: TrainingSet, tmp_path: Path) -> None:
    found = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")

    assert list(found.evaluations) == ["logistic regression", "LightGBM"]
    for name, evaluation in found.evaluations.items():
        assert evaluation.holdout_digest == training_set.digest
        assert evaluation.holdout == training_set.holdout
        assert evaluation.overall.rows == training_set.holdout_rows
        assert 0.2 < evaluation.overall["log_loss"] < 0.69, name
        assert len(evaluation.overall.by_day) == evaluation.days


def test_what_the_holdout_holds_is_not_learnt(training_set: TrainingSet, tmp_path: Path) -> None:
    """Another holdout of the same length: other figures, the same models."""
    mine = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")

    def turned(frame: pd.DataFrame) -> pd.DataFrame:
        judged = frame["event_timestamp"] >= training_set.holdout.start
        return frame.assign(label=frame["label"].where(~judged, 1 - frame["label"]))

    other = a_training_set(tmp_path, 1_200, turned, digest=content_digest(turned(some_rows(1_200))))
    theirs = train_baselines(a_spec(), other, "r1", tmp_path / "kept")

    for name, evaluation in mine.evaluations.items():
        assert theirs.evaluations[name].artifact == evaluation.artifact
        assert theirs.evaluations[name].overall["log_loss"] > evaluation.overall["log_loss"]


def test_run_again_nothing_is_trained_again(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")
    Path(training_set.uri).unlink()

    assert train_baselines(a_spec(), training_set, "r1", tmp_path / "kept") == first
    with pytest.raises(DataError, match="is gone"):
        train_baselines(a_spec(), training_set, "r2", tmp_path / "kept")


def test_figures_that_were_torn_are_made_again(training_set: TrainingSet, tmp_path: Path) -> None:
    first = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")
    (file,) = (tmp_path / "kept").iterdir()
    file.write_bytes(file.read_bytes()[:100])

    again = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")

    assert again.evaluations == first.evaluations
    assert Baselines.model_validate_json(file.read_bytes()) == again


def test_without_lightgbm_it_is_said_and_logistic_regression_stands(
    training_set: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosted_trees, "installed", lambda: False)

    found = train_baselines(a_spec(), training_set, "r1", tmp_path / "kept")

    assert list(found.evaluations) == ["logistic regression"]
    assert found.tried[1].note == "not trained: LightGBM is not installed; pip install 'evergreen[lightgbm]'"
