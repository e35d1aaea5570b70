"""What tests of serving are made of."""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evergreen.spec import ModelSpec, parse_spec
from evergreen.training.artifact import write_artifact
from evergreen.training.data.preprocessing import Coded, Encoder, fit
from evergreen.training.network.model import NetworkShape, build_network
from evergreen.training.predictor import ModelDescription, pack
from evergreen.types import Digest, Prediction
from serving.ids import prediction_id
from serving.metrics import Metrics

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
ORIGINS, DESTS, CARRIERS, TAILS = ["EWR", "JFK"], ["IAH", "LAX"], ["UA", "DL"], ["N14228", "N24211"]


def a_flight(number: int = 0, **columns: Any) -> dict[str, Any]:
    """A row of a request; the store knows all its keys."""
    return {
        "carrier": CARRIERS[number % 2],
        "origin": ORIGINS[number % 2],
        "dest": DESTS[number % 2],
        "tailnum": TAILS[number % 2],
        "scheduled_departure": f"2013-06-01T14:{number % 60:02d}:00Z",
        "scheduled_arrival": f"2013-06-01T18:{number % 60:02d}:00Z",
        "distance": 1_400,
    } | columns


def a_prediction(
    number: int = 0,
    *,
    model: str = "flight_delay",
    version: int = 1,
    role: Literal["champion", "challenger"] = "champion",
    at: datetime = NOON,
) -> Prediction:
    example_id = f"2013-06-01-UA-{number}-EWR"
    return Prediction(
        prediction_id=prediction_id(model, example_id, at, version),
        model=model,
        version=version,
        role=role,
        example_id=example_id,
        event_timestamp=at,
        answered_at=at + timedelta(seconds=1),
        score=0.25,
        features={"wind": 3.0, "carrier": "UA", "gust": None},
        stale=("weather",),
        latency_ms=1.5,
    )


def a_spec(name: str = "taxi", **tables: dict[str, Any]) -> ModelSpec:
    data = {
        "domain": "rides",
        "examples": "rides",
        "event_time": "pickup",
        "labels": "tips",
        "label": "tipped",
        "feature_service": name,
    }
    return parse_spec({"model": {"name": name}, "data": data, **tables})


def an_artifact(folder: Path, inputs: Mapping[str, Literal["numeric", "categorical"]], seed: int = 0) -> Digest:
    """A real artifact whose network was never trained: another seed, other answers."""
    draw = np.random.default_rng(seed)
    numerics = {name: draw.normal(size=500).astype(np.float32) for name, kind in inputs.items() if kind == "numeric"}
    for values in numerics.values():
        values[:20] = np.nan
    codes = draw.integers(0, 3, 500).astype(np.int32)
    categoricals = {name: Coded(codes, ("1", "UA", "DL")) for name, kind in inputs.items() if kind == "categorical"}
    fitted = fit(numerics, categoricals, inputs)
    encoder = Encoder(fitted)
    shape = NetworkShape(
        numerics=len(numerics),
        indicators=encoder.indicators,
        cardinalities=encoder.cardinalities,
        hidden=(8,),
        dropout=0.0,
        input_noise=0.0,
        embedding_bins=4,
        embedding_width=2,
    )
    description = ModelDescription(model="taxi", shape=shape, preprocessing=fitted, lineage={"seed": seed})
    return write_artifact(folder, pack(description, build_network(shape, seed)))


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample's value now; 0 where it was never counted."""
    return metrics.registry.get_sample_value(f"evergreen_{name}", labels) or 0.0


def eventually(holds: Callable[[], Any], seconds: float = 60.0, what: str = "it") -> None:
    """Wait for another thread's work; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} never happened"
        time.sleep(0.005)
