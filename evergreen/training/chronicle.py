"""What rank 0 says along the way: progress and the curve.

Called by `worker.py` after each step, on every rank; only rank 0 speaks.
"""

import time

import torch

from evergreen.errors import CheckpointError
from evergreen.training import loop
from evergreen.training.batches import BatchOrder
from evergreen.training.dataset import Dataset, Part
from evergreen.training.loop import TrainState
from evergreen.training.parallel import Place, is_sharded
from evergreen.training.processes import tell

_LINES = 20
"""Progress lines of a run, about."""


class Chronicle:
    """What rank 0 says along the way; on other ranks it is silent."""

    def __init__(self, order: BatchOrder, validation: Part, place: Place) -> None:
        self._order, self.place = order, place
        self._validation = validation
        self._every = max(1, order.steps // _LINES)
        self._said_at = time.monotonic()
        self._rows_since = 0

    def say(self, line: str) -> None:
        """One line to whoever launched the job."""
        if self.place.leads:
            tell(line)

    def refused(self, error: CheckpointError) -> None:
        """A checkpoint that is not used."""
        self.say(f"refused: {error}")

    def opening(self, dataset: Dataset) -> None:
        """What is about to happen."""
        fitted, rows = dataset.fitted, (len(dataset.training), len(dataset.validation))
        for name, reason in fitted.dropped.items():
            self.say(f"dropped feature {name!r}: {reason}")
        self.say(
            f"training on {rows[0]:,} rows, validating on {rows[1]:,}: {len(fitted.numerics)} numeric and "
            f"{len(fitted.categoricals)} categorical inputs, {self._order.steps} steps, {self.place.ranks} ranks on "
            f"{self.place.device.type}"
        )

    def after_step(self, state: TrainState, loss: float) -> None:
        """Speak now and then and close each epoch; a sharded network answers only when all ranks ask it."""
        if not (self.place.leads or is_sharded(state.network)):
            return
        self._rows_since += min(self._order.batch_size, self._order.rows)
        last = state.step == self._order.steps
        if state.step % self._every == 0 or last:
            self._progress(state, loss)
        if self._order.ends_epoch(state.step):
            self._close_epoch(state)

    def _progress(self, state: TrainState, loss: float) -> None:
        now = time.monotonic()
        speed = self._rows_since / max(now - self._said_at, 1e-9)
        epoch = self._order.epoch(state.step - 1) + 1
        self.say(f"step {state.step}/{self._order.steps} epoch {epoch} loss {loss:.4f} rows/s {speed:.0f}")
        self._said_at, self._rows_since = now, 0

    def _close_epoch(self, state: TrainState) -> None:
        epoch = self._order.epoch(state.step - 1) + 1
        row = {"step": float(state.step), "epoch": float(epoch), "train_loss": state.epoch_loss / state.epoch_rows}
        if len(self._validation):
            chances = loop.chances_of(state.network, self._validation.rows)
            labels = self._validation.targets[:, 0].double()
            row["validation_loss"] = float(torch.nn.functional.binary_cross_entropy(chances, labels))
        state.curve.append(row)
        state.epoch_loss, state.epoch_rows = 0.0, 0
        self.say(f"epoch {epoch} done: " + " ".join(f"{name} {row[name]:.4f}" for name in row if name.endswith("loss")))
