import numpy as np
import pytest
import torch

from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Encoded
from evergreen.training.network.few import FEW_ROWS, FewRows
from evergreen.training.network.fused import FusedNetwork
from evergreen.training.network.model import NetworkShape, Rows, build_network
from evergreen.training.network.objective import answer


def a_shape(**changes: object) -> NetworkShape:
    plain = NetworkShape(
        numerics=5,
        indicators=2,
        cardinalities=(4, 7),
        hidden=(16, 8),
        dropout=0.0,
        input_noise=0.0,
        embedding_bins=6,
        embedding_width=3,
        outputs=4,
        members=3,
    )
    return plain.model_copy(update=changes)


SHAPES = pytest.mark.parametrize(
    "shape",
    [
        a_shape(),
        a_shape(members=1),
        a_shape(hidden=()),
        a_shape(numerics=0, indicators=0),
        a_shape(cardinalities=()),
        a_shape(indicators=0, outputs=1),
    ],
)
BINARY = Label()
MULTICLASS = Label(task="multiclass", classes=("on time", "late", "very late"))
REGRESSION = Label(task="regression", mean=12.0, scale=30.0)


def some_rows(shape: NetworkShape, rows: int, *, spread: float = 1.0) -> Encoded:
    draw = np.random.default_rng(rows)
    return Encoded(
        (spread * draw.standard_normal((rows, shape.numerics))).astype(np.float32),
        draw.integers(0, 2, (rows, shape.indicators)).astype(np.float32),
        draw.integers(0, 4, (rows, len(shape.cardinalities))),
    )


@SHAPES
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_members_in_one_pass_say_what_they_say_one_by_one(shape: NetworkShape, rows: int) -> None:
    network = build_network(shape, seed=3).eval()
    asked = Rows.of(some_rows(shape, rows))

    with torch.inference_mode():
        torch.testing.assert_close(FusedNetwork(network)(asked), network(asked), rtol=1e-5, atol=1e-6)


@SHAPES
@pytest.mark.parametrize("label", [BINARY, MULTICLASS, REGRESSION], ids=lambda label: label.task)
@pytest.mark.parametrize("rows", [0, 1, FEW_ROWS])
@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_a_few_rows_are_answered_as_many_are(shape: NetworkShape, label: Label, rows: int, spread: float) -> None:
    network = build_network(shape.model_copy(update={"outputs": shape.outputs + label.outputs - 1}), seed=3).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # biases begin at zero, and would hide that they are forgotten
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    asked = some_rows(shape, rows, spread=spread)

    found = FewRows(FusedNetwork(network), label).answer(asked)

    assert found.dtype == np.float64
    np.testing.assert_allclose(found, answer(network, label, Rows.of(asked)).numpy(), rtol=1e-5, atol=1e-6)


def test_a_number_on_an_edge_between_two_bins_is_answered_as_in_either() -> None:
    shape = a_shape(numerics=1, indicators=0, cardinalities=(), embedding_bins=4)
    network = build_network(shape, seed=3).eval()
    edges = np.array([[-3.1], [-0.6744898], [0.0], [0.6744898], [3.1], [-9.0], [9.0]], dtype=np.float32)
    asked = Encoded(edges, np.zeros((7, 0), dtype=np.float32), np.zeros((7, 0), dtype=np.int64))

    found = FewRows(FusedNetwork(network), BINARY).answer(asked)

    np.testing.assert_allclose(found, answer(network, BINARY, Rows.of(asked)).numpy(), rtol=1e-5)
