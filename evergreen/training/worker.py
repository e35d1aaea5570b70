"""One rank of a training job: from the training set's file to the artifact.

Every rank reads, fits the preprocessing and trains; rank 0 alone speaks, writes checkpoints and, at the end, the
model. Called by `launch.py` through elastic launch; any other launcher that sets RANK and WORLD_SIZE can call
`run_rank` as well.
"""

import json
import shutil
import sys
import time
import traceback
from pathlib import Path

from evergreen.errors import EvergreenError
from evergreen.training import loop
from evergreen.training.artifact import write_artifact, write_durably
from evergreen.training.batches import BatchOrder
from evergreen.training.checkpoint import Checkpoints
from evergreen.training.chronicle import Chronicle
from evergreen.training.columns import validation_days
from evergreen.training.dataset import Dataset, open_dataset
from evergreen.training.job import TrainingJob
from evergreen.training.label import Label
from evergreen.training.loop import TrainState
from evergreen.training.model import NetworkShape, build_network
from evergreen.training.parallel import Place, process_group
from evergreen.training.predictor import ModelDescription, pack
from evergreen.training.preprocessing import Encoder
from evergreen.training.processes import ERROR_MARK, die_with_parent, tell
from evergreen.training.spending import metered
from evergreen.types import TrainedModel


def run_rank(job_file: str, started: float, launcher: int) -> None:
    """Train, and end the process with status 1 after saying what went wrong.

    `started` is a `time.time()`, `launcher` the process this one must not outlive.
    """
    die_with_parent(launcher)
    job = TrainingJob.model_validate_json(Path(job_file).read_text())
    try:
        with process_group() as place, metered(job.spent_path, started, place):
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
    dataset = open_dataset(job, job.rows_path)
    network = build_network(shape_of(Encoder(dataset.fitted), dataset.label, job), config.seed)
    order = BatchOrder(len(dataset.training), config.batch_size, config.epochs, config.seed)
    state = loop.start(network, config, order, place)
    checkpoints = Checkpoints(job.checkpoints_path, job.digest, config.keep_checkpoints)
    days = validation_days(job.training_set) if place.leads and config.abandon_margin is not None else None
    chronicle = Chronicle(order, checkpoints, dataset.validation, dataset.label, place, config.checkpoint_seconds, days)
    chronicle.opening(dataset)

    saved = checkpoints.load_newest(on_refused=chronicle.refused)
    if saved is not None:
        state.restore(saved)
        chronicle.say(f"resumed at step {state.step}/{order.steps}")
    resumed_from = state.step
    chronicle.begins(state)

    training = place.hold(dataset.training)
    loop.fit(
        state,
        lambda step: loop.make_batch(step, training, order, network, config, place),
        dataset.label,
        order,
        config,
        place,
        chronicle.after_step,
    )
    if place.leads:
        _finish(job, state, dataset, chronicle, resumed_from, started)


def shape_of(encoder: Encoder, label: Label, job: TrainingJob) -> NetworkShape:
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
        outputs=label.outputs + len(config.auxiliary_thresholds),
        members=config.members,
    )


def _finish(
    job: TrainingJob, state: TrainState, dataset: Dataset, chronicle: Chronicle, resumed_from: int, started: float
) -> None:
    description = ModelDescription(
        model=job.spec.name,
        shape=state.network.shape,
        label=dataset.label,
        preprocessing=dataset.fitted,
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
    shutil.rmtree(job.rows_path)
