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

import torch

from evergreen.errors import CheckpointError, EvergreenError
from evergreen.training import loop, preprocessing
from evergreen.training.artifact import write_artifact, write_durably
from evergreen.training.batches import BatchOrder
from evergreen.training.checkpoint import Checkpoints
from evergreen.training.columns import Columns, read_columns
from evergreen.training.job import TrainingJob
from evergreen.training.loop import TrainState
from evergreen.training.model import NetworkShape, Rows, build_network
from evergreen.training.parallel import Place, process_group
from evergreen.training.predictor import ModelDescription, pack
from evergreen.training.preprocessing import Encoder, Preprocessing
from evergreen.training.processes import ERROR_MARK, die_with_parent, tell
from evergreen.types import TrainedModel

_LINES = 20
"""Progress lines of a run, about."""


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
    chronicle = Chronicle(order, checkpoints, _tensors(encoder, validation), place, config.checkpoint_seconds)
    chronicle.opening(fitted, len(training), len(validation))

    saved = checkpoints.load_newest(on_refused=chronicle.refused)
    if saved is not None:
        state.restore(saved)
        chronicle.say(f"resumed at step {state.step}/{order.steps}")
    resumed_from = state.step

    rows, labels = _tensors(encoder, training)
    loop.fit(
        state,
        lambda step: loop.make_batch(step, rows, labels, order, network, config, place),
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
    )


class Chronicle:
    """What rank 0 says and saves along the way; on other ranks it is silent."""

    def __init__(
        self,
        order: BatchOrder,
        checkpoints: Checkpoints,
        validation: tuple[Rows, torch.Tensor],
        place: Place,
        checkpoint_seconds: float,
    ) -> None:
        self._order, self._checkpoints, self.place = order, checkpoints, place
        self._validation = validation
        self._checkpoint_seconds = checkpoint_seconds
        self._every = max(1, order.steps // _LINES)
        self._said_at = self._saved_at = time.monotonic()
        self._rows_since = 0

    def say(self, line: str) -> None:
        """One line to whoever launched the job."""
        if self.place.leads:
            tell(line)

    def refused(self, error: CheckpointError) -> None:
        """A checkpoint that is not used."""
        self.say(f"refused: {error}")

    def opening(self, fitted: Preprocessing, training_rows: int, validation_rows: int) -> None:
        """What is about to happen."""
        for name, reason in fitted.dropped.items():
            self.say(f"dropped feature {name!r}: {reason}")
        self.say(
            f"training on {training_rows:,} rows, validating on {validation_rows:,}: {len(fitted.numerics)} numeric and "
            f"{len(fitted.categoricals)} categorical inputs, {self._order.steps} steps, {self.place.ranks} ranks on "
            f"{self.place.device.type}"
        )

    def after_step(self, state: TrainState, loss: float) -> None:
        """Speak now and then, close each epoch, and save when it is time."""
        if not self.place.leads:
            return
        self._rows_since += min(self._order.batch_size, self._order.rows)
        last = state.step == self._order.steps
        if state.step % self._every == 0 or last:
            self._progress(state, loss)
        if self._order.ends_epoch(state.step):
            self._close_epoch(state)
        if last or time.monotonic() - self._saved_at >= self._checkpoint_seconds:
            self._checkpoints.save(state.step, state.to_dict())
            self._saved_at = time.monotonic()

    def _progress(self, state: TrainState, loss: float) -> None:
        now = time.monotonic()
        speed = self._rows_since / max(now - self._said_at, 1e-9)
        epoch = self._order.epoch(state.step - 1) + 1
        self.say(f"step {state.step}/{self._order.steps} epoch {epoch} loss {loss:.4f} rows/s {speed:.0f}")
        self._said_at, self._rows_since = now, 0

    def _close_epoch(self, state: TrainState) -> None:
        epoch = self._order.epoch(state.step - 1) + 1
        row = {"step": float(state.step), "epoch": float(epoch), "train_loss": state.epoch_loss / state.epoch_rows}
        rows, labels = self._validation
        if len(labels):
            logits = loop.logits_of(state.network, rows)
            row["validation_loss"] = float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))
        state.curve.append(row)
        state.epoch_loss, state.epoch_rows = 0.0, 0
        self.say(f"epoch {epoch} done: " + " ".join(f"{name} {row[name]:.4f}" for name in row if name.endswith("loss")))


def _tensors(encoder: Encoder, columns: Columns) -> tuple[Rows, torch.Tensor]:
    encoded = encoder.encode_columns(columns.numerics, columns.categoricals)
    return Rows.of(encoded), torch.from_numpy(columns.labels.copy())


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
