"""One rank of a training job: from the training set's file to the artifact.

Every rank trains; rank 0 alone speaks and, at the end, writes the model. Called by `launch.py` through torch's elastic
launch or Ray Train; any other launcher that sets RANK and WORLD_SIZE can call `run_rank` as well.
"""

import shutil
import sys
import time
import traceback
from pathlib import Path

from torch import Tensor

from evergreen.errors import DataError, EvergreenError
from evergreen.training import loop
from evergreen.training.artifact import write_artifact, write_durably
from evergreen.training.data.batches import BatchOrder
from evergreen.training.data.columns import validation_days
from evergreen.training.data.dataset import Dataset, open_dataset
from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Encoder
from evergreen.training.loop import TrainState
from evergreen.training.network.model import Network, NetworkShape, build_network
from evergreen.training.predictor import ModelDescription, pack, read_network
from evergreen.training.progress.chronicle import Chronicle
from evergreen.training.run import guards
from evergreen.training.run.checkpoint import Checkpoints
from evergreen.training.run.job import Base, TrainingJob
from evergreen.training.run.keeper import Keeper, Notice
from evergreen.training.run.parallel import is_sharded, process_group, whole
from evergreen.training.run.processes import REFUSED, die_with_parent, error_line, tell
from evergreen.training.run.spending import metered
from evergreen.types import TrainedModel


def run_rank(job_file: str, started: float, launcher: int | None) -> None:
    """Train, and end the process with a status after saying what went wrong: `REFUSED` where that has a name.

    `started` is a `time.time()`, `launcher` the process this one must not outlive; None where another sees to that.
    """
    if launcher is not None:
        die_with_parent(launcher)
    try:
        train_rank(TrainingJob.model_validate_json(Path(job_file).read_text()), started)
    except Exception as error:
        named = error if isinstance(error, EvergreenError) else guards.out_of_memory(error)
        if named is not None:
            tell(error_line(named))
            raise SystemExit(REFUSED) from named
        tell(traceback.format_exc().rstrip())
        # What breaks between ranks is a RuntimeError: one of them is gone, and all may start again.
        sys.exit(1 if isinstance(error, RuntimeError) else REFUSED)


def train_rank(job: TrainingJob, started: float) -> None:
    """The job as one rank sees it; when rank 0 returns, the artifact and the result are in the job's folder."""
    notice = Notice(job.stop_path)
    with process_group() as place, metered(job.note_paths, started, place):
        config = job.spec.train
        dataset = open_dataset(job, job.rows_path)
        shape = shape_of(Encoder(dataset.fitted), dataset.label, job)
        guards.require_memory(shape, config, place)
        network = build_network(shape, config.seed)
        if job.base is not None:
            go_on_from(job.base, network)
        order = BatchOrder(len(dataset.training), config.batch_size, config.epochs, config.seed)
        state = loop.start(network, config, order, place)
        days = validation_days(job.training_set) if config.abandon_margin is not None else None
        chronicle = Chronicle(order, dataset.validation, dataset.label, place, days)
        chronicle.opening(dataset)

        checkpoints = Checkpoints(
            job.checkpoints_path, job.digest, config.keep_checkpoints, place, sharded=is_sharded(network)
        )
        if saved := checkpoints.load_newest(state.ready, chronicle.refused):
            state.restore(saved["numbers"])
            other = "" if saved["ranks"] == place.ranks else f", saved by {saved['ranks']} ranks: equal up to rounding"
            chronicle.say(f"resumed at step {state.step}/{order.steps}{other}")
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
            Keeper(checkpoints, config.checkpoint_seconds, order.steps, place, notice),
            chronicle.after_step,
        )
        weights = whole(state.weights(config.keep))
        if place.leads:
            chronicle.closing(state, config.keep)
            _finish(job, state, weights, dataset, chronicle, resumed_from, started)


def go_on_from(base: Base, network: Network) -> None:
    """Give a network the base's weights; raises `DataError` where the spec now asks for another network."""
    _, known = read_network(base.uri, base.digest)
    try:
        network.load_state_dict(known.state_dict())
    except RuntimeError as error:
        raise DataError(
            f"the champion {base.digest[:19]}… is a network of {known.shape}, the spec asks for {network.shape}: its weights "
            "fit no other. Retrain it from the beginning (remedy=retrain), or put [train] back."
        ) from error


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
    job: TrainingJob,
    state: TrainState,
    weights: dict[str, Tensor],
    dataset: Dataset,
    chronicle: Chronicle,
    resumed_from: int,
    started: float,
) -> None:
    network = build_network(state.network.shape)
    network.load_state_dict(weights)
    description = ModelDescription(
        model=job.spec.name,
        shape=network.shape,
        label=dataset.label,
        preprocessing=dataset.fitted,
        lineage=job.lineage,
    )
    digest = write_artifact(job.model_path, pack(description, network))
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
