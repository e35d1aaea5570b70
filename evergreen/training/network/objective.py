"""What is minimised, and what the network's outputs answer, by task: pure functions of tensors.

The first outputs are the label's (see `data/label.py`), then comes one for each auxiliary threshold, whatever the task.
Binary: logit of 1, log loss. Multiclass: a logit a class, log loss over their softmax. Regression: the label in standard
deviations from its mean, squared error, so a row far out pulls hard; a label with a heavy tail is better given as its
logarithm. Called by `loop.py`, `progress/chronicle.py` and `predictor.py`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from evergreen.training.data.label import Label
from evergreen.training.network.model import Rows


def summed_losses(label: Label, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of the label, and the mean log loss of the auxiliary outputs, each summed over members and rows.

    `logits` (members, rows, outputs), `targets` (rows, 1 + auxiliary); an unknown auxiliary target costs nothing.
    """
    told, beside = logits[..., : label.outputs], logits[..., label.outputs :]
    return _label_loss(label, told, targets[:, 0]), _auxiliary_loss(beside, targets[:, 1:])


def answers_of(label: Label, logits: Tensor) -> Tensor:
    """(rows,) probability of 1, (rows, classes) probabilities, or (rows,) numbers in the label's unit, as float64.

    `logits` (members, rows, outputs); the members answer with the mean of what each would say.
    """
    told = logits[..., : label.outputs].double()
    if label.task == "multiclass":
        return told.softmax(-1).mean(0)
    if label.task == "regression":
        return told[..., 0].mean(0) * label.scale + label.mean
    return told[..., 0].sigmoid().mean(0)


@torch.inference_mode()
def answer(network: nn.Module, label: Label, rows: Rows, chunk: int = 8192) -> Tensor:
    """What the network answers, without any disturbance, on the CPU; see `answers_of`."""
    was_training = network.training
    if was_training:  # walking through the modules to set it again takes longer than to answer a row
        network.eval()
    weight = next(network.parameters(), None)  # a quantized or exported one keeps none
    device = rows.numeric.device if weight is None else weight.device
    parts = []
    for start_row in range(0, max(len(rows.numeric), 1), chunk):
        part = rows if len(rows.numeric) <= chunk else rows[start_row : start_row + chunk]
        parts.append(answers_of(label, network(part.to(device))).cpu())
    if was_training:
        network.train()
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def row_losses(label: Label, answers: Tensor, targets: Tensor) -> Tensor:
    """(rows,) loss of each answer, in the units of `summed_losses`; `targets` (rows,) as `Label.targets` gives them."""
    targets = targets.double()
    if label.task == "multiclass":
        return functional.nll_loss(answers.clamp_min(1e-30).log(), targets.long(), reduction="none")
    if label.task == "regression":
        return functional.mse_loss((answers - label.mean) / label.scale, targets, reduction="none")
    return functional.binary_cross_entropy(answers, targets, reduction="none")


def _label_loss(label: Label, told: Tensor, targets: Tensor) -> Tensor:
    members, rows, outputs = told.shape
    if label.task == "multiclass":
        classes = targets.long().expand(members, rows)
        return functional.cross_entropy(told.reshape(-1, outputs), classes.reshape(-1), reduction="sum")
    targets = targets.expand(members, rows)
    if label.task == "regression":
        return functional.mse_loss(told[..., 0], targets, reduction="sum")
    return functional.binary_cross_entropy_with_logits(told[..., 0], targets, reduction="sum")


def _auxiliary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    known = targets.isfinite()
    losses = functional.binary_cross_entropy_with_logits(
        logits, targets.where(known, 0.0).expand_as(logits), reduction="none"
    )
    return (losses * known).sum() / max(logits.shape[-1], 1)
