"""What a step's losses are made of, for each task, and what logits answer."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from evergreen import figures
from evergreen.training.data.label import Label
from evergreen.training.network.objective import answers_of, row_losses, summed_losses

BINARY = Label()
MULTICLASS = Label(task="multiclass", classes=("on time", "late", "very late"))
REGRESSION = Label(task="regression", mean=12.0, scale=30.0)
EACH = pytest.mark.parametrize("label", [BINARY, MULTICLASS, REGRESSION], ids=lambda label: label.task)
UNKNOWN = math.nan


def a_batch(label: Label, rows: int, members: int = 2, auxiliary: int = 2, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Logits and targets as a step has them; some auxiliary targets are unknown."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(members, rows, label.outputs + auxiliary, generator=draw, dtype=torch.float64)
    if label.task == "multiclass":
        told = torch.randint(0, 3, (rows, 1), generator=draw).double()
    elif label.task == "regression":
        told = torch.randn(rows, 1, generator=draw, dtype=torch.float64)
    else:
        told = torch.randint(0, 2, (rows, 1), generator=draw).double()
    beside = torch.randint(0, 3, (rows, auxiliary), generator=draw).double()
    return logits, torch.cat([told, torch.where(beside == 2, UNKNOWN, beside)], dim=1)


def test_an_unknown_target_costs_nothing_and_teaches_nothing() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)

    label, auxiliary = summed_losses(BINARY, logits, torch.tensor([[1.0, UNKNOWN, 0.0], [0.0, UNKNOWN, UNKNOWN]]))
    torch.autograd.backward(label + auxiliary)

    assert math.isclose(label.item(), 2 * math.log(2), rel_tol=1e-6)
    assert math.isclose(auxiliary.item(), math.log(2) / 2, rel_tol=1e-6)
    assert logits.grad is not None
    assert logits.grad[0].ne(0).tolist() == [[True, False, True], [True, False, False]]


@EACH
def test_without_auxiliary_outputs_only_the_label_counts(label: Label) -> None:
    logits, targets = a_batch(label, rows=3, auxiliary=0)

    told, auxiliary = summed_losses(label, logits, targets)

    assert float(told) > 0.0
    assert float(auxiliary) == 0.0


@EACH
@given(rows=st.integers(1, 20), cut=st.integers(0, 20), seed=st.integers(0, 1_000))
def test_the_losses_of_the_parts_of_a_batch_add_up_to_those_of_the_whole(
    label: Label, rows: int, cut: int, seed: int
) -> None:
    logits, targets = a_batch(label, rows, seed=seed)

    whole = summed_losses(label, logits, targets)
    parts = [summed_losses(label, logits[:, part], targets[part]) for part in (slice(0, cut), slice(cut, None))]

    for i in range(2):
        assert math.isclose(float(whole[i]), float(parts[0][i] + parts[1][i]), rel_tol=1e-9, abs_tol=1e-9)


@EACH
def test_an_empty_part_of_a_batch_costs_nothing(label: Label) -> None:
    logits, targets = a_batch(label, rows=0)

    assert [float(loss) for loss in summed_losses(label, logits, targets)] == [0.0, 0.0]


@given(order=st.permutations([0, 1, 2]), seed=st.integers(0, 1_000))
def test_in_whatever_order_classes_are_numbered_the_loss_is_the_same(order: list[int], seed: int) -> None:
    logits, targets = a_batch(MULTICLASS, rows=10, auxiliary=0, seed=seed)
    renumbered = torch.tensor([float(order.index(int(k))) for k in targets[:, 0]]).unsqueeze(1)

    before, after = (
        summed_losses(MULTICLASS, logits, targets),
        summed_losses(MULTICLASS, logits[..., order], renumbered),
    )

    assert torch.allclose(before[0], after[0])
    assert torch.allclose(answers_of(MULTICLASS, logits)[:, order], answers_of(MULTICLASS, logits[..., order]))


def test_two_classes_cost_what_a_binary_label_costs() -> None:
    logits, targets = a_batch(BINARY, rows=10, auxiliary=0)
    two = Label(task="multiclass", classes=("no", "yes"))
    as_classes = torch.cat([torch.zeros_like(logits), logits], dim=-1)

    assert torch.allclose(summed_losses(BINARY, logits, targets)[0], summed_losses(two, as_classes, targets)[0])
    assert torch.allclose(answers_of(BINARY, logits), answers_of(two, as_classes)[:, 1])


@EACH
def test_the_mean_loss_of_one_members_answers_is_the_loss_it_learns_by(label: Label) -> None:
    logits, targets = a_batch(label, rows=10, members=1)

    told, _ = summed_losses(label, logits, targets)

    assert math.isclose(
        float(row_losses(label, answers_of(label, logits), targets[:, 0]).mean()), float(told) / 10, rel_tol=1e-9
    )


@EACH
def test_training_and_gate_mean_the_same_loss(label: Label) -> None:
    logits, targets = a_batch(label, rows=10)
    answers = answers_of(label, logits)
    labels = targets[:, 0].numpy() * label.scale + label.mean

    at_gate = figures.row_losses(label.task, labels, answers.numpy()).mean() / label.scale**2

    assert math.isclose(float(row_losses(label, answers, targets[:, 0]).mean()), at_gate, rel_tol=1e-6)


def test_a_regression_answers_in_the_labels_unit() -> None:
    answers = answers_of(REGRESSION, torch.tensor([[[0.0], [1.0]], [[0.0], [2.0]]]))

    assert answers.tolist() == [12.0, 57.0]
    assert REGRESSION.targets(np.array([12.0, 57.0], dtype=np.float32)).tolist() == [0.0, 1.5]


def test_members_answer_with_the_mean_of_their_probabilities_not_of_their_logits() -> None:
    logits = torch.tensor([[[0.0, 0.0, 5.0]], [[3.0, 0.0, -5.0]]])

    expected = (functional.softmax(logits[0], -1) + functional.softmax(logits[1], -1)) / 2

    assert torch.allclose(answers_of(MULTICLASS, logits), expected.double(), atol=1e-6)
