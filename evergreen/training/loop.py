"""The training loop: it fits on a screen, and a resumed run enters in the middle.

`fit` advances a `TrainState`; whatever it needs of the world (ranks, files, a terminal) is handed in. Called by
`run/worker.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from evergreen.spec import TrainConfig
from evergreen.training.data.batches import BatchOrder, noise_for, share_of
from evergreen.training.data.dataset import Part
from evergreen.training.data.label import Label
from evergreen.training.network.model import Disturbance, Network, NetworkShape, Rows, parameter_groups
from evergreen.training.network.objective import summed_losses
from evergreen.training.run import guards
from evergreen.training.run.keeper import Keeper
from evergreen.training.run.parallel import Place, clip_gradients, distribute, totals, without_exchange


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

    first_loss: float | None = None
    """Of the untrained network: what a loss that rises without bound is told by."""
    steps_beyond: int = 0
    """Steps in a row whose loss was far above it."""

    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights by name after the epoch that did best on the validation rows; until there is one, the first ones."""
    best_loss: float | None = None
    best_step: int = 0

    def __post_init__(self) -> None:
        self.best = _copy(self.network)

    def note_validation(self, loss: float) -> None:
        """An epoch ended with this loss on the validation rows: keep its weights if none did better."""
        if self.best_loss is None or loss < self.best_loss:
            self.best, self.best_loss, self.best_step = _copy(self.network), loss, self.step

    def weights(self, keep: Literal["last", "best"]) -> dict[str, Tensor]:
        """The newest, or those of the best epoch where there is one."""
        return self.best if keep == "best" and self.best_loss is not None else self.network.state_dict()

    def tensors(self) -> dict[str, Tensor]:
        """Weights and moments by name, not copied: what is read into them is the state."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        found |= {f"best.{name}": value for name, value in self.best.items()}
        for name, parameter in self.network.named_parameters():
            found |= {f"optimizer.{name}.{key}": value for key, value in self.optimizer.state[parameter].items()}
        return found

    def numbers(self) -> dict[str, Any]:
        """All else, as JSON; floats and random states come back to the last bit."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "curve": [dict(row) for row in self.curve],
            "schedule": self.schedule.state_dict(),
            "groups": [{k: v for k, v in g.items() if k != "params"} for g in self.optimizer.param_groups],
            "random": random_states(),
        }

    def ready(self) -> dict[str, Tensor]:
        """`tensors`, those included that an optimizer makes at its first step: with places for what was saved."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.tensors()

    def restore(self, numbers: dict[str, Any]) -> None:
        """Become what was saved; `ready()` was filled before."""
        for name in _NUMBERS:
            setattr(self, name, numbers[name])
        self.curve = numbers["curve"]
        self.schedule.load_state_dict(numbers["schedule"])
        for group, saved in zip(self.optimizer.param_groups, numbers["groups"], strict=True):
            group |= {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        set_random_states(numbers["random"])


_NUMBERS = ("step", "epoch_loss", "epoch_rows", "first_loss", "steps_beyond", "best_loss", "best_step")


def _copy(network: Network) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def random_states() -> dict[str, str]:
    """Of this process's generators, in hexadecimal. All ranks hold the same: a batch's randomness comes from outside."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {device: bytes(state.tolist()).hex() for device, state in states.items()}


def set_random_states(states: dict[str, str]) -> None:
    """Go on drawing where those stood; a device that had none keeps its own."""
    tensors = {device: torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8) for device, state in states.items()}
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def start(network: Network, config: TrainConfig, order: BatchOrder, place: Place) -> TrainState:
    """A run at step 0: AdamW under a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120)."""
    distributed = distribute(network, config, place)
    _settle(distributed, network.shape, place)
    optimizer = AdamW(parameter_groups(network, config.weight_decay), lr=config.learning_rate, fused=config.fused)
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

    def pieces(self, count: int) -> list["Batch"]:
        """The same rows in `count` batches that differ by one row at most; some may be empty."""
        if count == 1:
            return [self]
        parts = [share_of(i, count, len(self.targets)) for i in range(count)]
        return [Batch(self.rows[p], self.targets[p], self.disturbance[p], self.global_rows) for p in parts]


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
    keeper: Keeper,
    after_step: Callable[[TrainState, float], None],
) -> None:
    """Advance `state` to the last step; a resumed run enters with `state.step > 0`.

    Raises, on all ranks together, `TrainingFailed` when the loss or its gradient is no longer finite or rises without bound,
    and `TrainingStopped` when any rank was told to stop.
    """
    state.network.train()
    while state.step < order.steps:
        batch = batch_of(state.step)
        summed = sum_gradients(state, batch, label, config, place)
        loss_sum, save, stop = totals(torch.stack([summed, *summed.new_tensor(keeper.wishes())]), place)
        loss = loss_sum / (batch.global_rows * len(state.network.members))
        norm = max(clip_gradients(member.parameters(), config.max_norm) for member in state.network.members)
        guards.require_sane(state, loss, norm)
        state.optimizer.step()
        state.schedule.step()
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        state.epoch_loss += loss * batch.global_rows
        state.epoch_rows += batch.global_rows
        after_step(state, loss)
        keeper.after_step(state, save=save > 0, stop=stop > 0)


def sum_gradients(state: TrainState, batch: Batch, label: Label, config: TrainConfig, place: Place) -> Tensor:
    """Go forward and back, piece by piece; returns the label's loss summed over this rank's rows and the members.

    Ranks may hold unequal parts, and their gradients are averaged: the factor makes that the mean over the global batch.
    Members share nothing, so the sum over them teaches each what it would learn alone.
    """
    pieces = batch.pieces(config.accumulate)
    told = torch.zeros((), device=place.device)
    for piece in pieces:
        with without_exchange(state.distributed, last=piece is pieces[-1]):
            with torch.autocast(place.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                logits = state.distributed(piece.rows, piece.disturbance)
            label_loss, auxiliary_loss = summed_losses(label, logits.float(), piece.targets)
            summed = label_loss + config.auxiliary_weight * auxiliary_loss
            torch.autograd.backward(summed * (place.ranks / batch.global_rows))
        told += label_loss.detach()
    return told
