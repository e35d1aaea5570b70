"""A recalibrated version: the champion's network as it is, its answers moved. An artifact like any other, and no pickle.

The same champion and rows give the same artifact, so a retrain that is run again finds its version again. Called by
`tasks/remedy.py`.
"""

import hashlib
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from evergreen.errors import DataError
from evergreen.recalibration import fit_recalibration
from evergreen.training.artifact import MODEL_FILE, read_artifact, write_artifact
from evergreen.training.predictor import Predictor
from evergreen.types import Cost, Digest, Remedy, TrainedModel, TrainingSet


def unlearnt(rows: pd.DataFrame, training_set: TrainingSet, made: TrainedModel, days: int) -> pd.DataFrame:
    """Of a training set's rows, those a recalibration of `made` is fitted on.

    The newest `days` before the holdout, and none that the weights have learnt from: of those a model is too sure.
    """
    since = max(made.weights_until, training_set.holdout.start - timedelta(days=days))
    moments = rows["event_timestamp"]
    return rows[(moments >= since) & (moments < training_set.holdout.start)]


def recalibrate(
    champion: Path, made: TrainedModel, training_set: TrainingSet, rows: pd.DataFrame, folder: Path, code_revision: str
) -> TrainedModel:
    """Fit on `rows` of `training_set`, see `unlearnt`, and write the artifact below `folder`.

    `champion` is the folder of the artifact `made` describes. Its own recalibration, if it has one, gives way to the new
    one. Raises `DataError` where it is not a model of two classes or reads what `rows` do not have, `ArtifactError` where its
    bytes are not the expected ones.
    """
    started, used = time.monotonic(), time.process_time()
    predictor = Predictor.load(champion, made.digest)
    if predictor.task != "binary":
        raise DataError(
            f"a recalibration moves the scores of two classes, and {made.digest[:19]}… is a {predictor.task} model. "
            "Ask for remedy=fine_tune."
        )
    fitted = fit_recalibration(
        rows["label"].to_numpy(dtype=float),
        predictor.unmoved(predictor.columns(rows)),
    )
    lineage = _lineage(predictor.description.lineage, made.digest, training_set, code_revision)
    described = predictor.description.model_copy(update={"recalibration": fitted, "lineage": lineage})
    files = {**read_artifact(champion, made.digest), MODEL_FILE: described.model_dump_json().encode()}
    name = hashlib.sha256(files[MODEL_FILE]).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    digest = write_artifact(folder / name, files)
    seconds, cpu = time.monotonic() - started, time.process_time() - used
    return made.model_copy(
        update={
            "uri": str(folder / name),
            "digest": digest,
            "training_set": training_set,
            "code_revision": code_revision,
            "steps": 0,
            "seconds": seconds,
            "curve": (),
            "job": None,
            "cost": Cost(device="cpu", devices=1, seconds=seconds, device_seconds=cpu),
            "remedy": Remedy.RECALIBRATE,
            "base": made.digest,
            "learnt_until": made.weights_until,
            "anew_until": made.trained_anew_until,
            "anew_rows": made.trained_anew_rows,
        }
    )


def _lineage(before: Mapping[str, Any], base: Digest, training_set: TrainingSet, code_revision: str) -> dict[str, Any]:
    return {**before, "recalibrated": {"base": base, "on": training_set.digest, "code_revision": code_revision}}
