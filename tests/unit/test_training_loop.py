"""What the members of a network answer together."""

import torch

from evergreen.training.label import Label
from evergreen.training.model import Rows, build_network
from evergreen.training.objective import answer
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
