"""What every way of serving is given: one model, trained and registered as usual, and the same flights to ask about.

The flights' own network after one epoch over January and February of 2013, judged by the gate's own rules, and champion
of two installations that differ in their online store. The flights are those asked about in the twelve hours after
`MOMENT`: once as what they are looked up by, once with the features that the point-in-time join gives them, which the
online store answers too.
"""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from bench.snapshot import snapshot
from evergreen import release
from evergreen.gate import decide
from evergreen.settings import ROOT, Settings
from evergreen.training.predictor import Predictor
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import Cause, TrainedModel, Window
from evergreen.wiring import Wiring

MODEL = "flight_delay"
AS_OF = datetime(2013, 3, 1, tzinfo=UTC)
MOMENT = datetime(2013, 2, 27, 12, tzinfo=UTC)
REDIS = os.environ.get("EVERGREEN_BENCH_REDIS_URL", "localhost:6379,db=11")
Store = Literal["sqlite", "redis"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Installation:
    """One that serves."""

    wiring: Wiring

    @property
    def variables(self) -> dict[str, str]:
        """Its settings as a process's environment."""
        settings = self.wiring.settings
        return {
            "EVERGREEN_HOME": str(settings.home),
            "EVERGREEN_MODELS_DIR": str(settings.models_dir),
            "EVERGREEN_ONLINE_STORE": settings.online_store,
            "EVERGREEN_REDIS_URL": settings.redis_url,
            "EVERGREEN_NOW": MOMENT.isoformat(),
        }

    def is_whole(self) -> bool:
        """Does the online store still hold the flights' features? Redis may have been emptied since."""
        names = self.wiring.features.needs(self.wiring.spec(MODEL).data.feature_service)
        rows = {name: [self.keys[0][name]] for name in names}
        read = self.wiring.features.online(self.wiring.spec(MODEL).data.feature_service, rows, MOMENT)
        return not read.stale[0]

    @cached_property
    def artifact(self) -> Path:
        """The registered model's files."""
        registry = self.wiring.registry
        return registry.fetch(registry.servable(MODEL, 1), self.wiring.settings.models_cache)

    @cached_property
    def flights(self) -> pd.DataFrame:
        """A row a flight: what it is looked up by, and its features as of `MOMENT`."""
        from evergreen.adapters.feature_tables import read_examples

        spec, window = self.wiring.spec(MODEL), Window(start=MOMENT, end=MOMENT + timedelta(hours=12))
        asked = read_examples(self.wiring.settings.data, spec, window, window.end)
        return self.wiring.features.historical(
            spec.data.feature_service, asked.assign(event_timestamp=pd.Timestamp(MOMENT))
        )

    @cached_property
    def keys(self) -> list[Row]:
        """Each flight as a request that leaves its features to be looked up."""
        names = self.wiring.features.needs(self.wiring.spec(MODEL).data.feature_service)
        return [_cells(row) for row in self.flights[list(names)].to_dict("records")]

    @cached_property
    def inputs(self) -> list[Row]:
        """Each flight as the model's inputs."""
        return [_cells(row) for row in self.flights[list(self.predictor.inputs)].to_dict("records")]

    @cached_property
    def predictor(self) -> Predictor:
        """The model."""
        return Predictor.load(self.artifact)

    @cached_property
    def scores(self) -> Sequence[float]:
        """What the model says of each flight's inputs."""
        columns = {name: [row[name] for row in self.inputs] for name in self.predictor.inputs}
        return [float(score) for score in self.predictor.score(columns)]


def installations(home: Path) -> dict[Store, Installation]:
    """One for each online store that is there, made on first use in a folder that is kept."""
    model = _trained(home)
    return {store: _installed(home, store, model) for store in ("sqlite", "redis")}


def _trained(home: Path) -> TrainedModel:
    kept = home / "serving" / "model.json"
    if kept.is_file():
        return TrainedModel.model_validate_json(kept.read_text())
    training_set = snapshot(home, AS_OF)
    spec = Wiring(Settings(home=home)).spec(MODEL)
    quick = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 1, "ranks": 1})})
    job = TrainingJob(
        training_set=training_set, spec=quick, code_revision="bench", folder=str(home / "serving" / "training")
    )
    model = train(job)
    kept.write_text(model.model_dump_json())
    return model


def _installed(home: Path, store: Store, model: TrainedModel) -> Installation:
    own = home / "serving" / store
    wiring = Wiring(Settings(home=own, online_store=store, redis_url=REDIS, models_dir=_models(home)))
    made = Installation(wiring)
    if (own / "made").is_file() and made.is_whole():
        return made
    wiring = Wiring(wiring.settings)
    made = Installation(wiring)
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    (own / "data").symlink_to(home.absolute() / "data")
    wiring.features.materialize("flights", MOMENT)
    spec = wiring.spec(MODEL)
    from tasks.gate import evaluate_artifact  # Prefect's import; only once

    evaluation = evaluate_artifact(spec, model.uri, model.digest, model.training_set)
    version = wiring.registry.register(
        model, evaluation, None, decide(evaluation, None, spec.gate), Cause.PERSON, spec, {}
    )
    if not version.passed:
        raise SystemExit(f"the bench's model does not pass its gate: {version.reasons}")
    with wiring.records() as records:
        first = release.start(None, model=MODEL, version=version.version, share=1.0, at=MOMENT)
        records.releases.save(
            first, expected_revision=None, action="bench", actor="bench", reason="to be measured", at=MOMENT
        )
    (own / "made").touch()
    return made


def _models(home: Path) -> Path:
    """The spec, but that every request reads the online store: few flights asked about again and again flatter a cache."""
    folder = home / "serving" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    written = (ROOT / "models" / f"{MODEL}.toml").read_text()
    (folder / f"{MODEL}.toml").write_text(written.replace("[serve]\n", "[serve]\nfeature_cache_seconds = 0\n"))
    return folder


def _cells(row: Mapping[Any, Any]) -> Row:
    return {str(name): _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return value.item() if hasattr(value, "item") else value


def dumped(content: Any) -> bytes:
    """As compact JSON."""
    return json.dumps(content, separators=(",", ":")).encode()
