"""A network's members side by side in one pass: the same answers from a third of the operations.

For answering only: no disturbance, no gradients. For few rows the operations' own overhead is most of the time, so members
that are asked one after another cost a multiple. They share what they are given, and the edges of their bins, so the
places in the bins are found once, and each layer of all members is one batched product. Sums come in another order than in
`Network`, which is rounding. Called by `variants.py`; `few.py` answers a few rows from the same weights.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from evergreen.training.network.model import (
    CategoryEmbedding,
    Member,
    Network,
    PiecewiseLinearEmbedding,
    Rows,
    places_in_bins,
)


class FusedNetwork(nn.Module):
    """Rows → (members, rows, outputs) logits, as the network it is made of."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.shape = network.shape
        members = [cast(Member, member) for member in network.members]
        self.numeric = FusedBins([member.numeric for member in members]) if network.shape.numerics else None
        self.category = FusedCategories([m.category for m in members]) if network.shape.cardinalities else None
        self.layers = nn.ModuleList(
            FusedLinear([cast(nn.Linear, member.layers[i]) for member in members])
            for i in range(len(network.shape.hidden))
        )
        self.deep = FusedLinear([member.deep for member in members])
        self.wide = FusedLinear([member.wide for member in members])
        self.requires_grad_(False)

    def forward(self, rows: Rows) -> Tensor:
        """See the class."""
        members = self.shape.members
        parts = [part.expand(members, -1, -1) for part in (rows.numeric, rows.missing)]
        if self.numeric is not None:
            parts.append(self.numeric(rows.numeric))
        if self.category is not None:
            parts.append(self.category(rows.categories))
        hidden = inputs = torch.cat(parts, dim=2)
        for layer in self.layers:
            hidden = functional.relu(layer(hidden))
        return self.deep(hidden) + self.wide(inputs)  # type: ignore[no-any-return]


class FusedLinear(nn.Module):
    """(members, rows, inputs) → (members, rows, outputs): each member its own matrix."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]).contiguous())
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases).unsqueeze(1)) if biases else None

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class."""
        return torch.bmm(inputs, self.weight) if self.bias is None else torch.baddbmm(self.bias, inputs, self.weight)


class FusedBins(nn.Module):
    """(rows, features) → (members, rows, features * width): `PiecewiseLinearEmbedding` of every member."""

    def __init__(self, embeddings: list[PiecewiseLinearEmbedding]) -> None:
        super().__init__()
        self.members = len(embeddings)
        self.register_buffer("scale", embeddings[0].scale, persistent=False)
        self.register_buffer("offset", embeddings[0].offset, persistent=False)
        self.weight = nn.Parameter(torch.cat([one.weight.detach() for one in embeddings], dim=2))
        self.bias = nn.Parameter(torch.cat([one.bias.detach() for one in embeddings], dim=2))

    scale: Tensor
    offset: Tensor

    def forward(self, numeric: Tensor) -> Tensor:
        """See the class."""
        places = places_in_bins(numeric, self.scale, self.offset)
        embedded = functional.relu(torch.baddbmm(self.bias, places, self.weight))
        features, rows, width = embedded.shape
        return embedded.view(features, rows, self.members, width // self.members).permute(2, 1, 0, 3).flatten(2)


class FusedCategories(nn.Module):
    """(rows, categoricals) → (members, rows, embeddings side by side): `CategoryEmbedding` of every member."""

    def __init__(self, embeddings: list[CategoryEmbedding]) -> None:
        super().__init__()
        self.members = len(embeddings)
        self.register_buffer("starts", embeddings[0].starts, persistent=False)
        self.table = nn.Parameter(torch.cat([one.table.weight.detach() for one in embeddings], dim=1))

    starts: Tensor

    def forward(self, categories: Tensor) -> Tensor:
        """See the class."""
        embedded = functional.embedding(categories + self.starts, self.table)  # (rows, categoricals, members * width)
        rows, columns, width = embedded.shape
        return embedded.view(rows, columns, self.members, width // self.members).permute(2, 0, 1, 3).flatten(2)
