"""A model of classes and one of numbers, from rows to answers: trained, judged, registered, loaded, served, logged, measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from evergreen.adapters.evidently.reports import drift_report
from evergreen.adapters.feature_tables import content_digest, load_training_set
from evergreen.gate import decide
from evergreen.monitoring.performance import live_figures, performance
from evergreen.settings import Settings
from evergreen.spec import FairnessConfig, GateConfig, MonitorConfig
from evergreen.training.predictor import Predictor
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import Cause, Release, Task, TrainedModel, TrainingSet, Window
from evergreen.wiring import Wiring
from serving.carrier import stored
from serving.features import FeatureLookup
from serving.loaded import LoadedModel
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.schemas import Answer
from serving.scoring import Scorer
from serving.spool import Spool
from tasks.gate import evaluate_artifact, evaluate_candidate
from tests.training_factories import DAYS, FEATURES, START, a_job, a_spec, a_training_set

pytestmark = pytest.mark.slow

RULES = GateConfig(min_rows=100, min_days=2)
NAMES = ("on time", "late", "very late")


class NoStore:
    """A joined frame brings its features; nothing is looked up."""

    def online(self, service: str, rows: Any, as_of: Any, cache: Any = None) -> Any:
        raise AssertionError((service, rows, as_of, cache))


@dataclass
class World:
    """One task's rows and a model that learnt them."""

    task: Task
    wiring: Wiring
    rows: TrainingSet
    model: TrainedModel

    @property
    def holdout(self) -> pd.DataFrame:
        frame = load_training_set(self.rows)
        return frame[frame["event_timestamp"] >= self.rows.holdout.start]


@pytest.fixture(scope="module", params=["multiclass", "regression"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home: Path = tmp_path_factory.mktemp(request.param)
    rows = a_training_set(home, rows=3_000, task=request.param)
    rows = rows.model_copy(update={"digest": content_digest(pd.read_parquet(rows.uri))})
    wiring = Wiring(Settings(home=home))
    model = train(a_job_of(request.param, home, rows, epochs=6, ranks=2), lambda _: None)
    yield World(request.param, wiring, rows, model)
    wiring.engine.dispose()


def a_job_of(task: Task, home: Path, rows: TrainingSet, **chosen: Any) -> TrainingJob:
    spec = a_spec(task, NAMES if task == "multiclass" else (), learning_rate=0.01, **chosen)
    return a_job(home, rows).model_copy(update={"spec": spec})


def test_it_is_judged_registered_and_answers_the_same_wherever_it_is_loaded(world: World, tmp_path: Path) -> None:
    spec = a_spec(world.task)
    blind = train(a_job_of(world.task, tmp_path, world.rows, epochs=1), lambda _: None)
    mine = evaluate_artifact(spec, world.model.uri, world.model.digest, world.rows)
    theirs = evaluate_artifact(spec, blind.uri, blind.digest, world.rows)

    decision = decide(mine, theirs, RULES)
    version = world.wiring.registry.register(world.model, mine, theirs, decision, Cause.PERSON, spec, {})
    where = world.wiring.registry.fetch(version, tmp_path / "fetched")

    assert decision.passed, decision.reasons
    assert mine.overall.loss < theirs.overall.loss
    assert not decide(theirs, mine, RULES).passed
    columns = {name: world.holdout[name].to_numpy() for name in FEATURES}
    scores = Predictor.load(where, version.artifact).score(columns)
    assert scores.shape == ((len(world.holdout), 3) if world.task == "multiclass" else (len(world.holdout),))
    client = MlflowClient(world.wiring.settings.tracking_uri)
    loaded = mlflow.pyfunc.load_model(client.get_model_version_download_uri("toy", str(version.version)))
    told = loaded.predict(world.holdout[list(FEATURES)].astype({"count": "float64"}))
    assert np.array_equal(told, scores)
    outputs = loaded.metadata.signature.outputs.to_dict()
    assert outputs == (
        [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": (-1, 3)}}]
        if world.task == "multiclass"
        else [{"type": "double", "required": True}]
    )


def test_a_candidate_is_asked_what_it_leans_on_and_how_it_treats_groups(world: World) -> None:
    fairness = FairnessConfig(column="carrier", max_loss_gap=2.0, min_rows=50)
    spec = a_spec(world.task).model_copy(update={"gate": RULES.model_copy(update={"fairness": fairness})})

    evaluation = evaluate_candidate.fn(spec, world.model, world.rows)
    checks = {check.name: check for check in decide(evaluation, None, spec.gate).checks}

    assert evaluation.attribution is not None
    assert set(evaluation.attribution.shares) == set(FEATURES)
    assert evaluation.attribution.features[0].rise > 0
    assert evaluation.unsound_scores == 0
    assert set(evaluation.groups) == set(world.holdout["carrier"].fillna("(missing)"))
    assert sum(day.rows for days in evaluation.groups.values() for day in days.values()) == len(world.holdout)
    assert checks["fairness loss"].passed, checks["fairness loss"].reason


def test_what_it_answers_is_logged_and_measured_with_what_came_true(world: World, tmp_path: Path) -> None:
    predictor, metrics = Predictor.load(world.model.uri, world.model.digest), Metrics()
    release = Release(model="toy", champion=1, changed_at=START)
    end = START + timedelta(days=DAYS)
    log = LogWriter(partial(stored, world.wiring), Spool(world.wiring.settings.spool), metrics)
    log.start()
    scorer = Scorer(FeatureLookup(NoStore(), metrics), log, metrics)
    loaded = LoadedModel(a_spec(world.task), release, {1: predictor}, needs={})
    answers = scorer.answer_joined(loaded, world.holdout)
    assert log.close() == 0
    came_true = world.holdout[["example_id", "label"]].assign(label_timestamp=end)
    with world.wiring.records() as records:
        counts = records.predictions.record_outcomes("toy", came_true, world.task)
        frame = records.predictions.frame("toy", world.rows.holdout, end)

    assert (counts.new, counts.unknown) == (len(answers), 0)
    answer = Answer(**Answer.fields(answers[0]))
    if world.task == "multiclass":
        assert answer.probabilities is not None
        assert list(answer.probabilities) == list(NAMES)
        assert answer.score == answer.probabilities[str(answer.most_likely)] == max(answer.probabilities.values())
    else:
        assert (answer.probabilities, answer.most_likely) == (None, None)
    config = MonitorConfig(min_labels=100)
    found = performance(frame, model="toy", version=1, window=world.rows.holdout, config=config, task=world.task)
    at_gate = evaluate_artifact(a_spec(world.task), world.model.uri, world.model.digest, world.rows).overall
    assert found.scores is not None
    assert found.scores.loss == pytest.approx(at_gate.loss)
    assert found.calibration_gap is not None
    assert abs(found.calibration_gap) < 0.3
    assert live_figures(frame.assign(latency_ms=1.0), 1, world.task).scores == found.scores
    page = tmp_path / "page.html"
    drift_report(
        world.holdout, frame, world.rows.features, model="toy", window=world.rows.holdout, reference_window=world.rows.window,
        html=page, score="score", label="label", task=world.task,
    )  # fmt: skip
    assert ("R2 Score" if world.task == "regression" else "Accuracy") in page.read_text()
