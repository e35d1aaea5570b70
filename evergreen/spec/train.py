"""`[train]` and `[tune]`: how a model learns, and where better values are looked for."""

from datetime import date
from typing import Literal, Self

from pydantic import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from evergreen.spec.table import Table
from evergreen.types import Share


class TrainConfig(Table):
    """How is a candidate trained? The `[train]` table."""

    history_start: date | None = None
    """First day of the window, which grows; without it the window slides over `window_days`."""
    window_days: PositiveInt = 90
    """Length of a sliding window."""
    holdout_days: PositiveInt = 7
    """The last days of the window judge and do not train."""
    epochs: PositiveInt = 4
    batch_size: PositiveInt = 1024
    """Rows a step over all ranks together."""
    keep: Literal["last", "best"] = "last"
    """Whose weights become the model: the last epoch's, at whose end the learning rate has come down to nothing, or those of
    the epoch that did best on the validation days."""
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 1e-2
    hidden: tuple[PositiveInt, ...] = (256, 128)
    dropout: Share = 0.3
    input_noise: NonNegativeFloat = 0.3
    """Standard deviation of Gaussian noise on the normalised numeric inputs while training."""
    embedding_bins: PositiveInt = 12
    """Bins of the piecewise-linear numeric embedding."""
    embedding_width: PositiveInt = 4
    """Outputs of that embedding a feature."""
    max_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    auxiliary_thresholds: tuple[float, ...] = ()
    """A further head a threshold learns whether `[data].auxiliary_label` is at least this; rows without one teach it nothing."""
    auxiliary_weight: NonNegativeFloat = 1.0
    """Of the mean loss of those heads beside the label's own."""
    teacher_share: Share = 0.0
    """So much of what a training row teaches is not its label but what boosted trees, which did not learn from its day, say of
    it. Not for several classes; needs the extra `lightgbm`. See `training/data/teacher.py`."""
    members: PositiveInt = 1
    """Networks that learn side by side from different first weights and answer with their mean."""
    ranks: PositiveInt = 2
    """Processes of `torch.distributed`: gloo on CPUs, nccl on GPUs."""
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    """Every rank holds the whole model, or a shard of it."""
    accumulate: PositiveInt = 1
    """A rank computes its part of a batch in so many pieces: the same step in less memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products; weights, sums and losses stay in fp32."""
    compile: bool = False
    """`torch.compile` the network."""
    fused: bool = True
    """Use the optimizer's fused kernel."""
    abandon_margin: PositiveFloat | None = None
    """Give up when, after half of the epochs, the loss on the validation days is this much above the champion's on those of
    them it has not trained on. Unset: train to the end."""
    checkpoint_seconds: NonNegativeFloat = 5.0
    """At least this long between the end of one checkpoint and the next; 0 saves as soon as the one before is on the disk."""
    keep_checkpoints: PositiveInt = 2
    """Older ones are removed. With 2 or more a damaged one costs some steps and not the run."""
    seed: int = 0


class TuneConfig(Table):
    """Where does `tune` look for better values of `[train]`? The `[tune]` table.

    A key names one of `[train]`. Where it holds two numbers the search goes from one to the other; an empty list leaves the key
    as it is. The present values are always tried first.
    """

    trials: PositiveInt = 20
    """Trainings, the pruned ones included."""
    holdout_days: PositiveInt = 28
    """The days that judge the trials. They follow those that train and end where the gate's own holdout starts."""
    seed: int = 0
    """Of the search; a trial trains with `[train].seed`."""
    learning_rate: tuple[PositiveFloat, ...] = (5e-4, 1e-2)
    """On a logarithmic scale."""
    weight_decay: tuple[PositiveFloat, ...] = (1e-3, 1e-1)
    """On a logarithmic scale."""
    dropout: tuple[Share, ...] = (0.0, 0.5)
    input_noise: tuple[NonNegativeFloat, ...] = (0.0, 0.5)
    epochs: tuple[PositiveInt, ...] = (2, 8)
    hidden: tuple[tuple[PositiveInt, ...], ...] = ((128, 64), (256, 128), (512, 256))
    """One of these."""
    batch_size: tuple[PositiveInt, ...] = (512, 1024, 2048)
    """One of these."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for key in ("learning_rate", "weight_decay", "dropout", "input_noise", "epochs"):
            found = getattr(self, key)
            if found and (len(found) != 2 or found[0] > found[1]):
                raise ValueError(
                    f"{key} is {list(found)}: give the lowest and the highest value, or [] to leave it alone"
                )
        return self
