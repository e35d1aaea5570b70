"""What a step's losses are made of, and what the members answer together."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from evergreen.training.loop import chances_of, summed_losses
from evergreen.training.model import Rows, build_network
from tests.unit.test_training_model import a_shape, some_inputs

LOGITS = st.floats(-5, 5, width=32)
TARGETS = st.sampled_from([0.0, 1.0, math.nan])


def test_an_unknown_target_costs_nothing_and_teaches_nothing() -> None:
    logits = torch.zeros(1, 2, 3, requires_grad=True)

    label, auxiliary = summed_losses(logits, torch.tensor([[1.0, math.nan, 0.0], [0.0, math.nan, math.nan]]))
    torch.autograd.backward(label + auxiliary)

    assert math.isclose(label.item(), 2 * math.log(2), rel_tol=1e-6)
    assert math.isclose(auxiliary.item(), math.log(2) / 2, rel_tol=1e-6)
    assert logits.grad is not None
    assert logits.grad[0].ne(0).tolist() == [[True, False, True], [True, False, False]]


def test_without_auxiliary_outputs_only_the_label_counts() -> None:
    label, auxiliary = summed_losses(torch.zeros(2, 3, 1), torch.ones(3, 1))

    assert math.isclose(float(label), 2 * 3 * math.log(2), rel_tol=1e-6)
    assert float(auxiliary) == 0.0


@given(st.lists(st.tuples(LOGITS, LOGITS, st.sampled_from([0.0, 1.0]), TARGETS), min_size=2, max_size=20), st.data())
def test_the_losses_of_the_parts_of_a_batch_add_up_to_those_of_the_whole(
    rows: list[tuple[float, float, float, float]], data: st.DataObject
) -> None:
    logits = torch.tensor([[[a, b] for a, b, *_ in rows]], dtype=torch.float64)
    targets = torch.tensor([[label, other] for *_, label, other in rows], dtype=torch.float64)
    cut = data.draw(st.integers(0, len(rows)))

    whole = summed_losses(logits, targets)
    parts = [summed_losses(logits[:, part], targets[part]) for part in (slice(0, cut), slice(cut, None))]

    for i in range(2):
        assert math.isclose(float(whole[i]), float(parts[0][i] + parts[1][i]), rel_tol=1e-9, abs_tol=1e-9)


def test_the_answer_is_the_mean_of_the_members_probabilities() -> None:
    network = build_network(a_shape(members=3, outputs=2)).eval()
    rows = some_inputs(network.shape, rows=7)

    chances = chances_of(network, rows, chunk=3)

    with torch.inference_mode():
        alone = torch.stack([torch.sigmoid(member(rows)[:, 0].double()) for member in network.members])
    assert chances.dtype == torch.float64
    assert torch.allclose(chances, alone.mean(0), atol=1e-7)
    assert chances_of(network, Rows(rows.numeric[:0], rows.missing[:0], rows.categories[:0])).shape == (0,)
