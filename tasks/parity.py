"""Compute logged answers of the champion again: offline features of the request's moment, and the version that answered."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from prefect import task

from evergreen.errors import DataError, FeatureServiceMissing
from evergreen.parity import compare_values, same
from evergreen.spec import ModelSpec
from evergreen.types import ModelVersion, Parity, Window
from evergreen.wiring import wiring
from serving.ids import is_looked_up
from tasks.gate import champion_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

    from evergreen.training.predictor import Predictor


@task(retries=2, retry_delay_seconds=5)
def check_parity(spec: ModelSpec, as_of: datetime) -> Parity | None:
    """The champion's answers of the last days beside the same ones computed again; None where it has given none."""
    champion, config = champion_of(spec), spec.gate
    if champion is None or not config.parity_rows:
        return None
    window, seed = Window(start=as_of - timedelta(days=config.parity_days), end=as_of), spec.train.seed
    with wiring().records() as records:
        answers, logged = records.predictions.draw(
            spec.name, champion.version, window, config.parity_rows, seed=seed, as_of=as_of
        )
    if not answers:
        return None
    nothing = Parity(version=champion.version, window=window, answers=answers, rows=0, seed=seed)
    try:
        return _computed_again(spec, champion, logged, nothing)
    except (DataError, FeatureServiceMissing) as error:
        return nothing.model_copy(update={"note": str(error)})


def _computed_again(spec: ModelSpec, champion: ModelVersion, logged: "DataFrame", nothing: Parity) -> Parity:
    from evergreen.adapters.feature_tables import read_asked
    from evergreen.training.predictor import Predictor

    wire = wiring()
    drawn = len(logged)
    logged = logged[_looked_up(spec.name, logged)]
    if logged.empty:
        note = f"all of the {drawn:,} drawn brought their own features"
        return nothing.model_copy(update={"unknown": drawn, "note": note})
    asked = read_asked(wire.settings.data, spec, logged[["prediction_id", "example_id", "event_timestamp"]])
    unknown = drawn - len(asked)
    if asked.empty:
        note = f"none of the {drawn:,} drawn was of looked-up features and known as an example when it was asked about"
        return nothing.model_copy(update={"unknown": unknown, "note": note})
    logged = logged.set_index("prediction_id").loc[asked["prediction_id"]].reset_index()
    service = wire.registry.training_set(champion).feature_service
    predictor = Predictor.load(wire.registry.fetch(champion, wire.settings.models_cache), champion.artifact)
    given = _columns(predictor, logged)
    offline = _columns(predictor, wire.features.historical(service, asked))
    refreshed = None
    refreshes = wire.features.refreshes(service)
    moments = [max((end for end in refreshes if end <= moment), default=moment) for moment in asked["event_timestamp"]]
    if any(moment != then for moment, then in zip(moments, asked["event_timestamp"], strict=True)):
        earlier = asked.assign(event_timestamp=moments).astype({"event_timestamp": asked["event_timestamp"].dtype})
        refreshed = _columns(predictor, wire.features.historical(service, earlier))
    tolerance, ids, said = spec.gate.parity_tolerance, logged["example_id"].tolist(), logged["score"].to_numpy()
    found = compare_values(given, offline, refreshed, ids, tolerance)
    wrong = ~same(said, _score(predictor, given), tolerance)
    again = _score(predictor, offline)
    moved = ~same(said, again, tolerance) & ~found.behind
    bad = found.values_differ | wrong | moved
    return nothing.model_copy(
        update={
            "rows": len(asked),
            "unknown": unknown,
            "behind": int(found.behind.sum()),
            "mismatches": int(bad.sum()),
            "wrong_scores": int(wrong.sum()),
            "moved_scores": int(moved.sum()),
            "largest_move": float(np.abs(said - again)[~found.behind].max(initial=0.0)),
            "columns": found.columns,
            "example_id": ids[int(np.flatnonzero(bad)[0])] if bad.any() else None,
        }
    )


def _looked_up(model: str, logged: "DataFrame") -> list[bool]:
    """Which answers are of features that serving looked up, as their ids say: who brings features may name a known example."""
    columns = (logged[name] for name in ("prediction_id", "example_id", "event_timestamp", "version"))
    return [
        is_looked_up(logged_id, model, example, moment.to_pydatetime(), version)
        for logged_id, example, moment, version in zip(*columns, strict=True)
    ]


def _columns(predictor: "Predictor", frame: "DataFrame") -> "dict[str, NDArray[Any]]":
    """What the model reads, as it is logged: numbers with NaN where there is none, categories as text or None."""
    from evergreen.training.data.preprocessing import category_key

    missing = [name for name in predictor.inputs if name not in frame]
    if missing:
        raise DataError(f"the champion reads {missing}, which the feature service no longer gives")
    columns: dict[str, NDArray[Any]] = {}
    for name, kind in predictor.inputs.items():
        if kind == "numeric":
            numbers = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
            columns[name] = np.where(np.isfinite(numbers), numbers, np.nan)
        else:
            columns[name] = np.array([category_key(value) for value in frame[name]] + [None], dtype=object)[:-1]
    return columns


def _score(predictor: "Predictor", columns: "dict[str, NDArray[Any]]") -> "NDArray[np.float64]":
    """As the log has it: of more than two classes that of the most likely one."""
    scores = predictor.score(columns)
    return scores.max(axis=1) if scores.ndim > 1 else scores
