import pytest
import torch

from evergreen.training.network.fused import FusedNetwork
from evergreen.training.network.model import NetworkShape, Rows, build_network


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


@pytest.mark.parametrize(
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
@pytest.mark.parametrize("rows", [0, 1, 33])
def test_members_in_one_pass_say_what_they_say_one_by_one(shape: NetworkShape, rows: int) -> None:
    network = build_network(shape, seed=3).eval()
    draw = torch.Generator().manual_seed(rows)
    asked = Rows(
        torch.randn(rows, shape.numerics, generator=draw),
        torch.randint(0, 2, (rows, shape.indicators), generator=draw).float(),
        torch.randint(0, 4, (rows, len(shape.cardinalities)), generator=draw),
    )

    with torch.inference_mode():
        torch.testing.assert_close(FusedNetwork(network)(asked), network(asked), rtol=1e-5, atol=1e-6)
