"""A small installation for serving's tests: the real feature repository over tiny tables, real models, a real registry."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evergreen.settings import ROOT, Settings
from evergreen.types import Cause, ModelVersion
from evergreen.wiring import Wiring
from tests.factories import a_gate_decision, a_trained_model, a_training_set, an_evaluation
from tests.serving.serving_factories import CARRIERS, DESTS, NOON, ORIGINS, TAILS, an_artifact


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiring]:
    """Two models over one feature service: `flight_delay`, and `strict`, which refuses unknown entities."""
    home = tmp_path_factory.mktemp("home")
    specs = home / "models"
    specs.mkdir()
    written = (ROOT / "models" / "flight_delay.toml").read_text()
    # A second, as shipped, may pass between two requests on a busy machine; expiry is tested by a clock of its own.
    written = written.replace("[serve]", "[serve]\nfeature_cache_seconds = 60")
    (specs / "flight_delay.toml").write_text(written)
    strict = written.replace('name = "flight_delay"', 'name = "strict"').replace('"defaults"', '"refuse"')
    (specs / "strict.toml").write_text(strict)
    wiring = Wiring(Settings(home=home, models_dir=specs, serving_poll_seconds=0.05))
    write_feature_tables(wiring.settings.data)
    wiring.features.materialize("flights", NOON)
    for number, passed in ((1, True), (2, True), (3, False)):
        register(wiring, "flight_delay", seed=number, passed=passed)
    register(wiring, "strict", seed=4)
    yield wiring
    wiring.engine.dispose()


def register(wiring: Wiring, model: str, *, seed: int, passed: bool = True) -> ModelVersion:
    """The next version of a model: a real artifact in the real registry."""
    spec = wiring.spec(model)
    inputs = wiring.features.inputs(spec.data.feature_service, spec.data.entity_features)
    folder = wiring.settings.home / "made" / str(seed)
    folder.parent.mkdir(exist_ok=True)
    digest = an_artifact(folder, inputs, seed)
    training_set = a_training_set().model_copy(update={"model": model, "features": inputs})
    return wiring.registry.register(
        a_trained_model(uri=str(folder), digest=digest, training_set=training_set),
        an_evaluation().model_copy(update={"model": model, "artifact": digest}),
        None,
        a_gate_decision(passed=passed),
        Cause.PERSON,
        spec,
        {},
    )


def write_feature_tables(data: Path) -> None:
    """One row a key and view, known a few minutes before noon."""
    from feast import FeatureView

    from feature_repo.flights import definitions

    keys = {"origin": ORIGINS, "dest": DESTS, "carrier": CARRIERS, "tailnum": TAILS}
    draw = np.random.default_rng(0)
    for view in vars(definitions).values():
        if not isinstance(view, FeatureView):
            continue
        rows = pd.MultiIndex.from_product([keys[column.name] for column in view.entity_columns])
        frame = rows.to_frame(index=False, name=[column.name for column in view.entity_columns])
        for field in view.features:
            frame[field.name] = draw.normal(size=len(frame))
        frame["event_timestamp"] = pd.Timestamp(NOON - timedelta(minutes=7)).as_unit("us")
        folder = data / "features" / view.name
        folder.mkdir(parents=True)
        frame.to_parquet(folder / f"day={NOON:%Y-%m-%d}.parquet", index=False)
