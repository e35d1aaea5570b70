"""The network's parts, by themselves."""

import torch

from evergreen.training.data.batches import noise_for
from evergreen.training.network.model import (
    Disturbance,
    NetworkShape,
    PiecewiseLinearEmbedding,
    Rows,
    build_network,
    parameter_groups,
)


def a_shape(numerics: int = 3, cardinalities: tuple[int, ...] = (4, 2), **fields: int) -> NetworkShape:
    return NetworkShape(
        numerics=numerics,
        indicators=min(numerics, 1),
        cardinalities=cardinalities,
        hidden=(16, 8),
        dropout=0.3,
        input_noise=0.3,
        embedding_bins=12,
        embedding_width=4,
        **fields,
    )


def some_inputs(shape: NetworkShape, rows: int = 5) -> Rows:
    draw = torch.Generator().manual_seed(0)
    return Rows(
        torch.randn(rows, shape.numerics, generator=draw),
        torch.zeros(rows, shape.indicators),
        torch.cat([torch.randint(0, n, (rows, 1), generator=draw) for n in shape.cardinalities], 1)
        if shape.cardinalities
        else torch.zeros(rows, 0, dtype=torch.int64),
    )


def test_the_same_seed_builds_the_same_network_and_another_another() -> None:
    one, two, other = (build_network(a_shape(), seed) for seed in (1, 1, 2))

    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    assert not torch.equal(one.state_dict()["members.0.deep.weight"], other.state_dict()["members.0.deep.weight"])


def test_it_works_with_numerics_only_with_categories_only_and_on_no_rows_at_all() -> None:
    for shape in (a_shape(cardinalities=()), a_shape(numerics=0), a_shape()):
        network = build_network(shape)
        for rows in (0, 1, 5):
            logits = network(some_inputs(shape, rows))
            logits.sum().backward()
            assert logits.shape == (1, rows, 1)


def test_every_member_sees_the_same_row_disturbed_in_its_own_way() -> None:
    noise = noise_for(1, 2, slice(0, 6), numerics=20, categoricals=3, hidden=(32, 18), dropout=0.3)
    drawn = Disturbance.of(noise)

    of_members = [drawn.of_member(i) for i in range(3)]

    assert of_members[0] is drawn
    for one, other in ((0, 1), (0, 2), (1, 2)):
        a, b = of_members[one], of_members[other]
        assert not (a.numeric == b.numeric).any()
        assert all((x != y).any(1).all() for x, y in zip(a.keep, b.keep, strict=True))
    assert torch.equal(of_members[2].numeric.sort(1).values, drawn.numeric.sort(1).values), "nothing new is drawn"


def test_members_differ_from_the_start_and_answer_side_by_side() -> None:
    network = build_network(a_shape(members=3, outputs=4))

    logits = network(some_inputs(network.shape))

    assert logits.shape == (3, 5, 4)
    assert not torch.allclose(logits[0], logits[1])
    assert torch.equal(logits[2], network.members[2](some_inputs(network.shape)))


def test_a_row_scores_the_same_alone_and_in_company() -> None:
    network, rows = build_network(a_shape()), some_inputs(a_shape())

    together = network(rows)
    alone = network(Rows(rows.numeric[2:3], rows.missing[2:3], rows.categories[2:3]))

    assert torch.allclose(together[:, 2:3], alone, atol=1e-6)


def test_noise_changes_the_answer_and_the_same_noise_changes_it_the_same_way() -> None:
    network, rows = build_network(a_shape()), some_inputs(a_shape())
    noise = noise_for(0, 0, slice(0, 5), numerics=3, categoricals=2, hidden=(16, 8), dropout=0.3)

    disturbed = network(rows, Disturbance.of(noise))

    assert not torch.allclose(disturbed, network(rows))
    assert torch.equal(disturbed, network(rows, Disturbance.of(noise)))


def test_the_two_halves_of_a_batch_see_the_noise_of_the_whole() -> None:
    network, rows = build_network(a_shape()), some_inputs(a_shape(), rows=6)
    noise = noise_for(0, 0, slice(0, 6), numerics=3, categoricals=2, hidden=(16, 8), dropout=0.3)

    whole = network(rows, Disturbance.of(noise))
    halves = [
        network(Rows(rows.numeric[part], rows.missing[part], rows.categories[part]), Disturbance.of(noise[part]))
        for part in (slice(0, 3), slice(3, 6))
    ]

    assert torch.allclose(whole, torch.cat(halves, dim=1), atol=1e-6)


def test_an_embedded_number_moves_one_bin_at_a_time() -> None:
    embedding = PiecewiseLinearEmbedding(features=1, bins=4, width=4)
    with torch.no_grad():
        embedding.weight.copy_(torch.eye(4).unsqueeze(0))

    # A normal's quartiles are -.674, 0 and .674: zero has filled two bins of four, the median of the third half of it.
    places = embedding(torch.tensor([[0.0], [0.337], [9.0]]))

    assert torch.allclose(places[0], torch.tensor([1.0, 1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(places[1], torch.tensor([1.0, 1.0, 0.5, 0.0]), atol=1e-3)
    assert torch.allclose(places[2], torch.ones(4))


def test_biases_and_embeddings_do_not_decay() -> None:
    network = build_network(a_shape())

    decayed, plain = parameter_groups(network, 0.01)

    names = {id(p): name for name, p in network.named_parameters()}
    assert {names[id(p)] for p in plain["params"]} == {
        "members.0.category.table.weight",
        "members.0.numeric.bias",
        "members.0.layers.0.bias",
        "members.0.layers.1.bias",
        "members.0.deep.bias",
    }
    assert len(decayed["params"]) + len(plain["params"]) == len(names)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
