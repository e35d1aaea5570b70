"""What stops a run before it makes a bad model: a loss that leaves all bounds, rows or weights that do not fit.

Called by `loop.fit` at each step and by `worker.py` before memory is asked for.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from evergreen.errors import TooLittleMemory, TrainingFailed
from evergreen.spec import TrainConfig
from evergreen.training.network.model import NetworkShape
from evergreen.training.run.parallel import Place

if TYPE_CHECKING:
    from evergreen.training.loop import TrainState

_BEYOND = 10.0
"""A loss is out of bounds this many times its first value (of 0.5 at least) above it."""
_STEPS_BEYOND = 20
"""So many such steps in a row are no accident."""
_COPIES = 5
"""Of the weights while training: themselves, their gradients, two moments and the best so far."""


def require_sane(state: "TrainState", loss: float, norm: float) -> None:
    """Count a step whose loss is out of bounds; raises `TrainingFailed` at one too many, or when a figure is not finite."""
    if state.first_loss is None:
        state.first_loss = loss
    bound = state.first_loss + _BEYOND * max(abs(state.first_loss), 0.5)
    state.steps_beyond = state.steps_beyond + 1 if loss > bound else 0
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and state.steps_beyond < _STEPS_BEYOND:
        return
    rate = state.optimizer.param_groups[0]["lr"]
    since = (
        "" if not finite else f", above {bound:.3g} for {state.steps_beyond} steps (it began at {state.first_loss:.3g})"
    )
    raise TrainingFailed(
        f"training diverged at step {state.step}: loss {loss}{since}, gradient norm {norm}, learning rate {rate:.3g}. "
        "Lower [train].learning_rate in the model's file, or look for extreme values in the features."
    )


def parameters_of(shape: NetworkShape) -> int:
    """How many weights a network of this shape has, counted without making them."""
    from evergreen.training.network.model import Network

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Network(shape).parameters())


def require_memory(shape: NetworkShape, config: TrainConfig, place: Place) -> None:
    """Raise `TooLittleMemory` when what training is sure to need is more than there is.

    Weights, gradients, moments and the best weights so far in fp32: whole on each rank, or under fsdp a share of them.
    Activations are left out, so this may let through what does not fit, and never refuses what does.
    """
    share = place.ranks if config.parallelism == "fsdp" else 1
    weights = 4 * parameters_of(shape)
    needed = _COPIES * weights // share
    if place.device.type == "cuda":
        _require(needed, torch.cuda.mem_get_info(place.device)[0], f"free on {place.device}", weights)
    else:
        _require(needed * place.here, available_bytes(), f"available to {place.here} ranks of this machine", weights)


def _require(needed: int, available: int, where: str, weights: int) -> None:
    if needed > available:
        raise TooLittleMemory(
            f"training needs at least {_gib(needed)}, but {_gib(available)} are {where}: the weights alone take "
            f"{_gib(weights)}. Lower [train].hidden, members or embedding_width, or share the weights over more ranks "
            'with parallelism = "fsdp".'
        )


def available_bytes() -> int:
    """Memory this process and its siblings may still take: the machine's, or what is left of a container's limit."""
    available = psutil.virtual_memory().available
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (folder / "memory.max").read_text().strip(), int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return available
    return available if limit == "max" else min(available, max(int(limit) - used, 0))


def out_of_memory(error: BaseException) -> TooLittleMemory | None:
    """The named error for one that says memory ran out; None for any other."""
    refused = isinstance(error, RuntimeError) and "allocate memory" in str(error)
    if not (isinstance(error, (MemoryError, torch.OutOfMemoryError)) or refused):
        return None
    return TooLittleMemory(
        f"memory ran out while training: {str(error).splitlines()[0] if str(error) else type(error).__name__}. Raise "
        "[train].accumulate or lower batch_size (activations), lower hidden or members (weights), or shorten the window."
    )


def _gib(size: int) -> str:
    return f"{size / (1 << 30):,.2f} GiB"
