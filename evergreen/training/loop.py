"""The training loop: it fits on a screen, and a resumed run enters in the middle.

`fit` advances a `TrainState`; whatever it needs of the world (ranks, files, a terminal) is handed in. Called by
`worker.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from evergreen.errors import TrainingFailed
from evergreen.spec import TrainConfig
from evergreen.training.batches import BatchOrder, noise_for, share_of
from evergreen.training.dataset import Part
from evergreen.training.label import Label
from evergreen.training.model import Disturbance, Network, NetworkShape, Rows, parameter_groups
from evergreen.training.objective import answers_of, summed_losses
from evergreen.training.parallel import Place, distribute, total


@dataclass
class TrainState:
    """All that changes while training."""

    network: Network
    distributed: nn.Module
    """The same weights, seen through the ranks."""
    optimizer: AdamW
    schedule: OneCycleLR
    step: int = 0
    """Steps done: with the seed it fixes the position in the data and all randomness."""
    epoch_loss: float = 0.0
    """Summed over the rows of this epoch so far."""
    epoch_rows: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.step,
            "epoch_loss": self.epoch_loss,
            "epoch_rows": self.epoch_rows,
            "curve": self.curve,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what was saved."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        self.step, self.curve = saved["step"], saved["curve"]
        self.epoch_loss, self.epoch_rows = saved["epoch_loss"], saved["epoch_rows"]


def start(network: Network, config: TrainConfig, order: BatchOrder, place: Place) -> TrainState:
    """A run at step 0: AdamW under a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120)."""
    distributed = distribute(network, place)
    _settle(distributed, network.shape, place)
    optimizer = AdamW(parameter_groups(network, config.weight_decay), lr=config.learning_rate, fused=True)
    schedule = OneCycleLR(optimizer, max_lr=config.learning_rate, total_steps=order.steps + 1)
    return TrainState(network, distributed, optimizer, schedule)


def _settle(distributed: nn.Module, shape: NetworkShape, place: Place) -> None:
    """Go forward and back once over no rows: DDP fixes the order in which it sums gradients after its first backward pass.

    A resumed run would else make its first step in another order than the run that was killed, and differ in the last bit.
    """
    empty = Rows(
        torch.zeros(0, shape.numerics, device=place.device),
        torch.zeros(0, shape.indicators, device=place.device),
        torch.zeros(0, len(shape.cardinalities), dtype=torch.int64, device=place.device),
    )
    torch.autograd.backward(distributed(empty).sum())
    distributed.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Batch:
    """One rank's part of one step, on its device."""

    rows: Rows
    targets: Tensor
    """(rows, 1 + auxiliary), as `Part` has them."""
    disturbance: Disturbance
    global_rows: int


def make_batch(
    step: int, training: Part, order: BatchOrder, network: Network, config: TrainConfig, place: Place
) -> Batch:
    """Gather this rank's rows of a step, where they are held; to a GPU the copies are pinned and do not block."""
    chosen = order.global_batch(step)
    mine = share_of(place.rank, place.ranks, len(chosen))
    shape = network.shape
    noise = noise_for(
        config.seed,
        step,
        mine,
        numerics=shape.numerics,
        categoricals=len(shape.cardinalities),
        hidden=shape.hidden,
        dropout=shape.dropout,
    )
    rows, index = training.rows, torch.from_numpy(chosen[mine]).to(training.targets.device)
    disturbance = Disturbance.of(noise)
    send = place.send
    return Batch(
        Rows(send(rows.numeric[index]), send(rows.missing[index]), send(rows.categories[index])),
        send(training.targets[index]),
        Disturbance(send(disturbance.numeric), send(disturbance.hide), tuple(map(send, disturbance.keep))),
        len(chosen),
    )


def fit(
    state: TrainState,
    batch_of: Callable[[int], Batch],
    label: Label,
    order: BatchOrder,
    config: TrainConfig,
    place: Place,
    after_step: Callable[[TrainState, float], None],
) -> None:
    """Advance `state` to the last step; a resumed run enters with `state.step > 0`.

    Raises `TrainingFailed`, on all ranks together, when the loss or its gradient is no longer finite.
    """
    state.network.train()
    while state.step < order.steps:
        batch = batch_of(state.step)
        logits = state.distributed(batch.rows, batch.disturbance)
        label_loss, auxiliary_loss = summed_losses(label, logits, batch.targets)
        summed = label_loss + config.auxiliary_weight * auxiliary_loss
        # Ranks may hold unequal parts, and DDP averages over ranks: this makes it the mean over the global batch. Members
        # share nothing, so the sum over them teaches each what it would learn alone.
        torch.autograd.backward(summed * (place.ranks / batch.global_rows))
        loss = total(label_loss, place) / (batch.global_rows * len(logits))
        norm = max(float(clip_grad_norm_(m.parameters(), config.max_norm)) for m in state.network.members)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _diverged(state, loss, norm)
        state.optimizer.step()
        state.schedule.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.epoch_loss += loss * batch.global_rows
        state.epoch_rows += batch.global_rows
        after_step(state, loss)


def _diverged(state: TrainState, loss: float, norm: float) -> TrainingFailed:
    rate = state.optimizer.param_groups[0]["lr"]
    return TrainingFailed(
        f"training diverged at step {state.step}: loss {loss}, gradient norm {norm}, learning rate {rate:.3g}. "
        "Lower [train].learning_rate in the model's file, or look for extreme values in the features."
    )


@torch.inference_mode()
def answer(network: Network, label: Label, rows: Rows, chunk: int = 8192) -> Tensor:
    """What the network answers, without any disturbance, on the CPU; see `objective.answers_of`."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    parts = []
    for start_row in range(0, max(len(rows.numeric), 1), chunk):
        part = slice(start_row, start_row + chunk)
        some = Rows(rows.numeric[part].to(device), rows.missing[part].to(device), rows.categories[part].to(device))
        parts.append(answers_of(label, network(some)).cpu())
    network.train(was_training)
    return torch.cat(parts)
