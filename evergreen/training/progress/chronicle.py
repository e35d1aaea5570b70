"""What rank 0 says along the way: lines, progress and the curve.

Called by `run/worker.py` after each step, on every rank; only rank 0 speaks.
"""

import time
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from evergreen.errors import CheckpointError
from evergreen.training.data.batches import BatchOrder
from evergreen.training.data.dataset import Dataset, Part
from evergreen.training.data.label import Label
from evergreen.training.loop import TrainState
from evergreen.training.network.objective import answer, row_losses
from evergreen.training.run.gauges import gpu_memory_bytes, gpu_use, resident_bytes
from evergreen.training.run.parallel import Place, is_sharded, totals
from evergreen.training.run.processes import PROGRESS_MARK, tell
from evergreen.types import DayLoss, Progress

_LINES = 20
"""Lines of a run that say its step, about."""
_PROGRESS_SECONDS = 0.5
"""At least this long between two tellings of progress, but for the ends of epochs."""


class Chronicle:
    """What rank 0 says along the way; on other ranks it is silent."""

    def __init__(
        self,
        order: BatchOrder,
        validation: Part,
        label: Label,
        place: Place,
        validation_days: NDArray[np.datetime64] | None = None,
    ) -> None:
        self._order, self.place = order, place
        self._validation, self._label = validation, label
        self._validation_days = validation_days
        self._by_day: tuple[DayLoss, ...] = ()
        self._every = max(1, order.steps // _LINES)
        self._said_at = self._told_at = time.monotonic()
        self._rows_said = self._rows_told = 0

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

    def begins(self, state: TrainState) -> None:
        """Tell where the run starts, or where it goes on."""
        if self.place.leads:
            self._tell_progress(state, None, None)

    def closing(self, state: TrainState, keep: Literal["last", "best"]) -> None:
        """Which epoch did best and whose weights are kept, where that was not the last."""
        if state.best_loss is not None and state.best_step < state.step:
            epoch, whose = self._order.epoch(state.best_step - 1) + 1, "its" if keep == "best" else "the last one's"
            self.say(f"epoch {epoch} did best on the validation rows; {whose} weights are kept ([train].keep)")

    def after_step(self, state: TrainState, loss: float) -> None:
        """Speak now and then and close each epoch; a sharded network answers only when all ranks ask it."""
        if not (self.place.leads or is_sharded(state.network)):
            return
        rows = min(self._order.batch_size, self._order.rows)
        self._rows_said += rows
        self._rows_told += rows
        last = state.step == self._order.steps
        if state.step % self._every == 0 or last:
            self._say_step(state, loss)
        ended = self._close_epoch(state) if self._order.ends_epoch(state.step) else None
        if self.place.leads and (ended or time.monotonic() - self._told_at >= _PROGRESS_SECONDS):
            self._tell_progress(state, loss, ended)

    def _say_step(self, state: TrainState, loss: float) -> None:
        now = time.monotonic()
        speed = self._rows_said / max(now - self._said_at, 1e-9)
        epoch = self._order.epoch(state.step - 1) + 1
        self.say(f"step {state.step}/{self._order.steps} epoch {epoch} loss {loss:.4f} rows/s {speed:.0f}")
        self._said_at, self._rows_said = now, 0

    def _tell_progress(self, state: TrainState, loss: float | None, ended: dict[str, float] | None) -> None:
        now, device = time.monotonic(), self.place.device
        progress = Progress(
            step=state.step,
            steps=self._order.steps,
            epoch=self._order.epoch(state.step - 1) + 1 if state.step else 0,
            epochs=self._order.epochs,
            loss=loss,
            validation_loss=ended.get("validation_loss") if ended else None,
            validation_by_day=self._by_day if ended else (),
            learning_rate=learning_rate(state),
            rows_per_second=self._rows_told / max(now - self._told_at, 1e-9),
            memory_bytes=resident_bytes(),
            gpu_memory_bytes=gpu_memory_bytes(device),
            gpu_use=gpu_use(device),
        )
        tell(PROGRESS_MARK + progress.model_dump_json())
        self._told_at, self._rows_told = now, 0

    def _close_epoch(self, state: TrainState) -> dict[str, float]:
        epoch = self._order.epoch(state.step - 1) + 1
        row = {"step": float(state.step), "epoch": float(epoch), "train_loss": state.epoch_loss / state.epoch_rows}
        if len(self._validation):
            answers = answer(state.network, self._label, self._validation.rows)
            losses = row_losses(self._label, answers, self._validation.targets[:, 0])
            loss = losses.mean()
            if is_sharded(state.network):  # all ranks must keep the same epoch, even where their GPUs round differently
                loss = torch.tensor(totals(loss.to(self.place.device), self.place)) / self.place.ranks
            row["validation_loss"] = float(loss)
            state.note_validation(row["validation_loss"])
            # A champion's losses are in the label's own unit.
            self._by_day = _by_day(losses.numpy() * self._label.scale**2, self._validation_days)
        row["learning_rate"] = learning_rate(state)
        state.curve.append(row)
        state.epoch_loss, state.epoch_rows = 0.0, 0
        self.say(f"epoch {epoch} done: " + " ".join(f"{name} {row[name]:.4f}" for name in row if name.endswith("loss")))
        return row


def _by_day(losses: NDArray[np.float64], days: NDArray[np.datetime64] | None) -> tuple[DayLoss, ...]:
    if days is None:
        return ()
    calendar, place, rows = np.unique(days, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights=losses)
    return tuple(DayLoss(day=d, rows=n, loss_sum=s) for d, n, s in zip(calendar.tolist(), rows, sums, strict=True))


def learning_rate(state: TrainState) -> float:
    """Of the next step."""
    return float(state.optimizer.param_groups[0]["lr"])
