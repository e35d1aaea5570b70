"""One rank of a training job: from the training set's file to the artifact.

Every rank reads, fits the preprocessing and trains; rank 0 alone speaks, writes checkpoints and, at the end, the
model. Called by `launch.py` through elastic launch; any other launcher that sets RANK and WORLD_SIZE can call
`run_rank` as well.
"""

import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import torch

from evergreen.errors import DataError, EvergreenError
from evergreen.training import loop, preprocessing
from evergreen.training.artifact import write_artifact, write_durably
from evergreen.training.batches import BatchOrder
from evergreen.training.checkpoint import Checkpoints
from evergreen.training.chronicle import Chronicle
from evergreen.training.columns import Columns, read_columns
from evergreen.training.job import TrainingJob
from evergreen.training.loop import TrainState
from evergreen.training.model import NetworkShape, Rows, build_network
from evergreen.training.parallel import Place, process_group
from evergreen.training.predictor import ModelDescription, pack
from evergreen.training.preprocessing import Encoder, Preprocessing
from evergreen.training.processes import ERROR_MARK, die_with_parent, tell
from evergreen.types import TrainedModel


def run_rank(job_file: str, started: float, launcher: int) -> None:
    """Train, and end the process with status 1 after saying what went wrong.

    `started` is a `time.time()`, `launcher` the process this one must not outlive.
    """
    die_with_parent(launcher)
    job = TrainingJob.model_validate_json(Path(job_file).read_text())
    try:
        with process_group() as place:
            train_rank(job, place, started)
    except EvergreenError as error:
        tell(ERROR_MARK + json.dumps({"kind": type(error).__name__, "message": str(error)}))
        sys.exit(1)
    except Exception:
        tell(traceback.format_exc().rstrip())
        sys.exit(1)


def train_rank(job: TrainingJob, place: Place, started: float) -> None:
    """The job as one rank sees it; when rank 0 returns, the artifact and the result are in the job's folder."""
    config = job.spec.train
    training, validation = read_columns(job.training_set)
    fitted = preprocessing.fit(training.numerics, training.categoricals, job.training_set.features)
    encoder = Encoder(fitted)
    network = build_network(shape_of(encoder, job), config.seed)
    order = BatchOrder(len(training), config.batch_size, config.epochs, config.seed)
    state = loop.start(network, config, order, place)
    checkpoints = Checkpoints(job.checkpoints_path, job.digest, config.keep_checkpoints)
    chronicle = Chronicle(order, checkpoints, _tensors(encoder, validation, ()), place, config.checkpoint_seconds)
    chronicle.opening(fitted, len(training), len(validation))

    saved = checkpoints.load_newest(on_refused=chronicle.refused)
    if saved is not None:
        state.restore(saved)
        chronicle.say(f"resumed at step {state.step}/{order.steps}")
    resumed_from = state.step

    rows, targets = _tensors(encoder, training, config.auxiliary_thresholds)
    loop.fit(
        state,
        lambda step: loop.make_batch(step, rows, targets, order, network, config, place),
        order,
        config,
        place,
        chronicle.after_step,
    )
    if place.leads:
        _finish(job, state, fitted, chronicle, resumed_from, started)


def shape_of(encoder: Encoder, job: TrainingJob) -> NetworkShape:
    """The network that fits these columns and the spec."""
    config = job.spec.train
    return NetworkShape(
        numerics=len(encoder.fitted.numerics),
        indicators=encoder.indicators,
        cardinalities=encoder.cardinalities,
        hidden=config.hidden,
        dropout=config.dropout,
        input_noise=config.input_noise,
        embedding_bins=config.embedding_bins,
        embedding_width=config.embedding_width,
        outputs=1 + len(config.auxiliary_thresholds),
        members=config.members,
    )


def _tensors(encoder: Encoder, columns: Columns, thresholds: tuple[float, ...]) -> tuple[Rows, torch.Tensor]:
    """Rows as the network takes them, and (rows, outputs) targets; see `loop.Batch`."""
    encoded = encoder.encode_columns(columns.numerics, columns.categoricals)
    targets = [columns.labels]
    if thresholds:
        if columns.auxiliary is None:
            raise DataError(
                "[train].auxiliary_thresholds are set, but the training set has no column `auxiliary`. Build it again: "
                "it was made before [data].auxiliary_label was."
            )
        unknown = np.isnan(columns.auxiliary)
        targets += [np.where(unknown, np.nan, columns.auxiliary >= limit).astype(np.float32) for limit in thresholds]
    return Rows.of(encoded), torch.from_numpy(np.stack(targets, axis=1))


def _finish(
    job: TrainingJob, state: TrainState, fitted: Preprocessing, chronicle: Chronicle, resumed_from: int, started: float
) -> None:
    description = ModelDescription(
        model=job.spec.name,
        shape=state.network.shape,
        preprocessing=fitted,
        lineage=job.lineage,
    )
    digest = write_artifact(job.model_path, pack(description, state.network))
    result = TrainedModel(
        uri=str(job.model_path),
        digest=digest,
        training_set=job.training_set,
        spec_digest=job.spec.digest,
        code_revision=job.code_revision,
        seed=job.spec.train.seed,
        steps=state.step,
        resumed_from_step=resumed_from,
        seconds=time.time() - started,
        ranks=chronicle.place.ranks,
        curve=tuple(state.curve),
    )
    write_durably(job.result_path, result.model_dump_json().encode())
