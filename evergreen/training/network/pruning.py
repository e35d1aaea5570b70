"""A smaller network out of a trained one: its hidden units that carry least are taken out.

Structured magnitude pruning: a unit's weight is the norm of what comes into it times the norm of what it gives on, and
half of each layer's units go, in each member its own (by norms as in Li et al. 2017, "Pruning Filters for Efficient
ConvNets"). What is left is an ordinary network with smaller matrices, so it needs nothing to run and can be tuned further.
Called by `variants.py`.
"""

from typing import cast

import torch
from torch import Tensor, nn

from evergreen.training.network.model import Member, Network, build_network

KEPT = 0.5
"""Share of each hidden layer's units."""


def pruned(network: Network) -> Network:
    """A network of `KEPT` as many hidden units; the one given stays as it is."""
    hidden = tuple(max(1, round(KEPT * units)) for units in network.shape.hidden)
    smaller = build_network(network.shape.model_copy(update={"hidden": hidden}))
    weights = smaller.state_dict()
    for number, member in enumerate(network.members):
        found = _member(cast(Member, member), hidden)
        weights |= {f"members.{number}.{name}": value for name, value in found.items()}
    smaller.load_state_dict(weights)
    return smaller


def _member(member: Member, hidden: tuple[int, ...]) -> dict[str, Tensor]:
    """The state of a member without the units that go."""
    state = {name: value.detach().clone() for name, value in member.state_dict().items()}
    layers = [cast(nn.Linear, layer) for layer in member.layers]
    names = [*(f"layers.{place}" for place in range(len(layers))), "deep"]
    for place, (layer, after) in enumerate(zip(layers, [*layers[1:], member.deep], strict=True)):
        into = torch.hypot(layer.weight.norm(dim=1), layer.bias.abs())
        kept = (into * after.weight.norm(dim=0)).topk(hidden[place]).indices.sort().values
        mine, next_one = names[place], names[place + 1]
        state[f"{mine}.weight"], state[f"{mine}.bias"] = state[f"{mine}.weight"][kept], state[f"{mine}.bias"][kept]
        state[f"{next_one}.weight"] = state[f"{next_one}.weight"][:, kept]
    return state
