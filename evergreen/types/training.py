"""From a training set to a trained model, and what it cost."""

from datetime import date, datetime
from typing import Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)

from evergreen.types.fact import Digest, Fact, Share, Utc, Window
from evergreen.types.remedy import Remedy


class TrainingSet(Fact):
    """A snapshot of rows addressed by its content: the rows before `holdout.start` train, the others judge."""

    uri: str
    """Path of one Parquet file, sorted by event timestamp and example id."""
    digest: Digest
    """Of the content, not of the file's encoding."""
    model: str
    feature_service: str
    as_of: Utc
    window: Window
    """Event times of all rows."""
    holdout: Window
    """The last part of `window`."""
    rows: NonNegativeInt
    holdout_rows: NonNegativeInt
    features: dict[str, Literal["numeric", "categorical"]]
    """Model inputs in column order."""


class DayLoss(Fact):
    """One day of some rows: what it takes to pair two models by day."""

    day: date
    """In UTC."""
    rows: PositiveInt
    loss_sum: NonNegativeFloat
    """The task's loss summed over the rows: log loss, or squared error."""
    auc_pull: float | None = None
    """How far the day's rows pull the AUC of all rows up or down; the pulls of all days sum to 0. None in a slice, and where
    only one class is present."""


class Progress(Fact):
    """How far a training run is: what rank 0 tells now and then."""

    step: NonNegativeInt
    steps: PositiveInt
    epoch: NonNegativeInt
    """From 1; 0 before the first step."""
    epochs: PositiveInt
    loss: float | None = None
    """Of the last step."""
    validation_loss: float | None = None
    """There when an epoch has just ended and days validate."""
    validation_by_day: tuple[DayLoss, ...] = ()
    """The same, day by day; there when an epoch has just ended and the spec may have the run given up."""
    learning_rate: NonNegativeFloat = 0.0
    rows_per_second: NonNegativeFloat = 0.0
    memory_bytes: NonNegativeInt = 0
    """Resident, of rank 0's process."""
    gpu_memory_bytes: NonNegativeInt | None = None
    gpu_use: Share | None = None
    """Of the last sample, where the device tells."""

    def __str__(self) -> str:
        losses = {"loss": self.loss, "validation loss": self.validation_loss}
        told = "".join(f", {name} {value:.4f}" for name, value in losses.items() if value is not None)
        return (
            f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}{told}, {self.rows_per_second:,.0f} rows/s"
        )


class Rates(Fact):
    """Prices; None where nobody said one."""

    cpu_hour: NonNegativeFloat | None = None
    """Of one core."""
    gpu_hour: NonNegativeFloat | None = None
    currency: str = "USD"


class Cost(Fact):
    """What a run used."""

    device: str
    """Kind: `cpu`, or the GPU's name."""
    devices: PositiveInt
    seconds: NonNegativeFloat
    """Wall clock, from start to end, summed over resumed parts."""
    device_seconds: NonNegativeFloat
    """CPU seconds used by all ranks, or seconds of GPUs held."""
    energy_joules: NonNegativeFloat | None = None
    """None where the device does not tell."""
    price: NonNegativeFloat | None = None
    """By the rates in the settings; None where there is none."""
    currency: str = "USD"

    def __str__(self) -> str:
        energy = "" if self.energy_joules is None else f", {self.energy_joules / 3600:.2f} Wh"
        price = "" if self.price is None else f", {self.price:.4f} {self.currency}"
        kind = "CPU seconds" if self.device == "cpu" else f"seconds of {self.device}"
        return (
            f"{self.seconds:.1f} s on {self.devices} x {self.device}, {self.device_seconds:.1f} {kind}{energy}{price}"
        )


class TrainedModel(Fact):
    """A model artifact in a directory: weights, preprocessing and what is known of how it was made."""

    uri: str
    digest: Digest
    """Of the files of the artifact, by name."""
    training_set: TrainingSet
    spec_digest: Digest
    code_revision: str
    seed: int
    steps: NonNegativeInt
    resumed_from_step: NonNegativeInt = 0
    seconds: NonNegativeFloat
    ranks: int = 1
    curve: tuple[dict[str, float], ...] = ()
    """A row an epoch: step, epoch, train_loss, validation_loss, learning_rate."""
    job: Digest | None = None
    """Of the job that made it: by it the run of its training is found."""
    cost: Cost | None = None
    """Of all parts of that job."""
    remedy: Remedy = Remedy.RETRAIN
    """How it was made."""
    base: Digest | None = None
    """The artifact it was recalibrated or fine-tuned from."""
    learnt_until: Utc | None = None
    """End of the rows its weights learnt from; None: where its training set's holdout starts."""
    anew_until: Utc | None = None
    """End of the rows its network was first trained on; None: the same."""
    anew_rows: NonNegativeInt | None = None
    """How many those were; None: those of its training set before the holdout."""

    @property
    def weights_until(self) -> datetime:
        """End of the rows its weights learnt from, by a retrain or a fine-tune."""
        return self.learnt_until or self.training_set.holdout.start

    @property
    def trained_anew_rows(self) -> int:
        """Rows of its last retrain."""
        return self.anew_rows or self.training_set.rows - self.training_set.holdout_rows

    @property
    def trained_anew_until(self) -> datetime:
        """End of the rows of its last retrain: what its age is counted from."""
        return self.anew_until or self.training_set.holdout.start


class Abandoned(Fact):
    """A training that was given up, because it could no longer beat the champion."""

    model: str
    job: Digest
    reason: str
    cost: Cost | None = None


class Trial(Fact):
    """One training of a search for better values."""

    number: NonNegativeInt
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    values: dict[str, int | float | str]
    loss: float | None = None
    """On the days that judge; None unless complete."""
    cost: Cost | None = None
    failure: str | None = None
    """Why its training could not be finished; None also where its process was killed."""


class Tuning(Fact):
    """What a search for better values came to."""

    model: str
    study: str
    trials: tuple[Trial, ...]
    best: Trial
    present: Trial | None
    """The one with the values the spec has now; None where it did not end well."""
    uri: str
    """The tuned spec's file."""
    diff: str
    """From the present spec to the tuned one; empty where nothing better was found."""
