"""What the members of a network answer together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from evergreen.training.data.batches import noise_for
from evergreen.training.data.label import Label
from evergreen.training.loop import Batch
from evergreen.training.network.model import Disturbance, Rows, build_network
from evergreen.training.network.objective import answer
from tests.unit.test_training_model import a_shape, some_inputs


def test_the_answer_is_the_mean_of_the_members_probabilities() -> None:
    network = build_network(a_shape(members=3, outputs=2)).eval()
    rows = some_inputs(network.shape, rows=7)

    chances = answer(network, Label(), rows, chunk=3)

    with torch.inference_mode():
        alone = torch.stack([torch.sigmoid(member(rows)[:, 0].double()) for member in network.members])
    assert chances.dtype == torch.float64
    assert torch.allclose(chances, alone.mean(0), atol=1e-7)
    assert answer(network, Label(), Rows(rows.numeric[:0], rows.missing[:0], rows.categories[:0])).shape == (0,)


def test_a_network_of_classes_answers_with_a_probability_for_each() -> None:
    network = build_network(a_shape(members=2, outputs=4)).eval()
    rows = some_inputs(network.shape, rows=7)

    chances = answer(network, Label(task="multiclass", classes=("a", "b", "c")), rows, chunk=3)

    assert chances.shape == (7, 3)
    assert torch.allclose(chances.sum(1), torch.ones(7, dtype=torch.float64))


@given(rows=st.integers(0, 40), count=st.integers(1, 50))
def test_the_pieces_of_a_batch_are_its_rows_each_once_and_in_order(rows: int, count: int) -> None:
    shape = a_shape()
    noise = noise_for(0, 0, slice(0, rows), numerics=3, categoricals=2, hidden=shape.hidden, dropout=0.3)
    targets = torch.arange(float(rows)).reshape(-1, 1)
    batch = Batch(some_inputs(shape, rows), targets, Disturbance.of(noise), global_rows=77)

    pieces = batch.pieces(count)

    assert torch.equal(torch.cat([piece.targets for piece in pieces]), targets)
    assert torch.equal(torch.cat([piece.rows.numeric for piece in pieces]), batch.rows.numeric)
    assert torch.equal(torch.cat([piece.disturbance.keep[1] for piece in pieces]), batch.disturbance.keep[1])
    sizes = [len(piece.targets) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert {piece.global_rows for piece in pieces} == {77}
