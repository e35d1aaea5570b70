"""The network: tabular rows → logits, of the label and of what is learnt beside it.

Normalised numerics go through piecewise-linear embeddings (Gorishniy et al. 2022, arXiv:2203.05556), categories
through an embedding table; their concatenation feeds a multilayer perceptron and, beside it, a wide linear skip. A few
of these members that differ in their first weights learn side by side and answer together (deep ensembles,
Lakshminarayanan et al. 2017, arXiv:1612.01474). All randomness of training comes from outside (`Noise`), so that it
can be drawn once for a batch that is split over ranks. Knows nothing of ranks, files or optimizers. To try another
architecture, give `build_network` something else to build.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from evergreen.training.data.batches import Noise
from evergreen.training.data.preprocessing import Encoded
from evergreen.types import Fact

_WIDEST_CATEGORY = 8


class NetworkShape(Fact):
    """What it takes to build the network; a part of `model.json`."""

    numerics: int
    indicators: int
    cardinalities: tuple[int, ...]
    """Places of each categorical."""
    hidden: tuple[int, ...]
    dropout: float
    input_noise: float
    embedding_bins: int
    embedding_width: int
    outputs: int = 1
    """Logits a row: the label's (one, or one a class), then one for each auxiliary threshold."""
    members: int = 1


@dataclass(frozen=True)
class Rows:
    """A batch as tensors; see `Encoded`."""

    numeric: Tensor
    missing: Tensor
    categories: Tensor

    @classmethod
    def of(cls, encoded: Encoded, device: torch.device | str = "cpu") -> "Rows":
        """Without a copy on the CPU."""
        parts = (encoded.numeric, encoded.missing, encoded.categories)
        return cls(*(torch.from_numpy(part).to(device) for part in parts))

    def to(self, device: torch.device) -> "Rows":
        """On another device, or these themselves."""
        if self.numeric.device == device:
            return self
        return Rows(self.numeric.to(device), self.missing.to(device), self.categories.to(device))

    def __getitem__(self, rows: slice) -> "Rows":
        return Rows(self.numeric[rows], self.missing[rows], self.categories[rows])


@dataclass(frozen=True)
class Disturbance:
    """A batch's `Noise` as tensors."""

    numeric: Tensor
    hide: Tensor
    keep: tuple[Tensor, ...]

    @classmethod
    def of(cls, noise: Noise) -> "Disturbance":
        """Without a copy."""
        return cls(
            torch.from_numpy(noise.numeric),
            torch.from_numpy(noise.hide),
            tuple(torch.from_numpy(mask) for mask in noise.keep),
        )

    def of_member(self, place: int) -> "Disturbance":
        """The same randomness, shifted over the columns by the member's place: no two members see the same row alike.

        A ninth of the columns a member, at least one. Within a row, so that splitting a batch changes nothing.
        """

        def shifted(tensor: Tensor) -> Tensor:
            return tensor.roll(place * max(tensor.shape[1] // 9, 1), dims=1)

        if place == 0:
            return self
        return Disturbance(shifted(self.numeric), shifted(self.hide), tuple(map(shifted, self.keep)))

    def __getitem__(self, rows: slice) -> "Disturbance":
        return Disturbance(self.numeric[rows], self.hide[rows], tuple(mask[rows] for mask in self.keep))


class PiecewiseLinearEmbedding(nn.Module):
    """(rows, features) → (rows, features * width): each feature's position in its bins, then a linear map of its own.

    Inputs are standard normal, so all features share the normal's quantiles as edges; the outer bins are open.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, features: int, bins: int, width: int) -> None:
        super().__init__()
        inner = [NormalDist().inv_cdf(i / bins) for i in range(1, bins)]
        edges = torch.tensor([-3.1, *inner, 3.1])
        scale = 1.0 / (edges[1:] - edges[:-1])
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("offset", -edges[:-1] * scale, persistent=False)
        self.weight = nn.Parameter(torch.randn(features, bins, width) / bins**0.5)
        self.bias = nn.Parameter(torch.zeros(features, 1, width))

    def forward(self, numeric: Tensor) -> Tensor:
        """See the class."""
        embedded = functional.relu(
            torch.baddbmm(self.bias, places_in_bins(numeric, self.scale, self.offset), self.weight)
        )
        return embedded.transpose(0, 1).flatten(1)


def places_in_bins(numeric: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """(rows, features) → (features, rows, bins): from 0 below a bin to 1 above it."""
    # In one pass and in place: with an operation each, a fifth of a training step went into these.
    return torch.addcmul(offset, numeric.t().unsqueeze(-1), scale).clamp_(0.0, 1.0)


class CategoryEmbedding(nn.Module):
    """(rows, categoricals) → their embeddings side by side; one table holds all of them."""

    starts: Tensor

    def __init__(self, cardinalities: tuple[int, ...], width: int) -> None:
        super().__init__()
        starts = torch.tensor([0, *cardinalities]).cumsum(0)[:-1]
        self.register_buffer("starts", starts, persistent=False)
        self.table = nn.Embedding(sum(cardinalities), width)
        nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, categories: Tensor) -> Tensor:
        """See the class."""
        return self.table(categories + self.starts).flatten(1)  # type: ignore[no-any-return]


class Member(nn.Module):
    """Rows → (rows, outputs) logits."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        inputs = shape.numerics + shape.indicators
        if shape.numerics:
            self.numeric = PiecewiseLinearEmbedding(shape.numerics, shape.embedding_bins, shape.embedding_width)
            inputs += shape.numerics * shape.embedding_width
        if shape.cardinalities:
            self.category = CategoryEmbedding(shape.cardinalities, _WIDEST_CATEGORY)
            inputs += len(shape.cardinalities) * _WIDEST_CATEGORY
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip((inputs, *shape.hidden), shape.hidden, strict=False)
        )
        self.deep = nn.Linear(shape.hidden[-1] if shape.hidden else inputs, shape.outputs)
        self.wide = nn.Linear(inputs, shape.outputs, bias=False)

    def forward(self, rows: Rows, disturbance: Disturbance | None = None) -> Tensor:
        """With a disturbance while training, without one ever after."""
        numeric, categories = rows.numeric, rows.categories
        if disturbance is not None:
            numeric = numeric + self.shape.input_noise * disturbance.numeric
            categories = categories.masked_fill(disturbance.hide, 0)
        parts = [numeric, rows.missing]
        if self.shape.numerics:
            parts.append(self.numeric(numeric))
        if self.shape.cardinalities:
            parts.append(self.category(categories))
        inputs = torch.cat(parts, dim=1)
        hidden = inputs
        for i, layer in enumerate(self.layers):
            hidden = functional.relu(layer(hidden))
            if disturbance is not None:
                hidden = hidden * (disturbance.keep[i] * (1.0 / (1.0 - self.shape.dropout)))
        return self.deep(hidden) + self.wide(inputs)  # type: ignore[no-any-return]


class Network(nn.Module):
    """Rows → (members, rows, outputs) logits."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        self.members = nn.ModuleList(Member(shape) for _ in range(shape.members))

    def forward(self, rows: Rows, disturbance: Disturbance | None = None) -> Tensor:
        """With a disturbance while training, without one ever after."""
        return torch.stack(
            [member(rows, disturbance and disturbance.of_member(i)) for i, member in enumerate(self.members)]
        )


def build_network(shape: NetworkShape, seed: int = 0) -> Network:
    """A network with weights drawn from the seed: the same on every rank."""
    torch.manual_seed(seed)
    return Network(shape)


def parameter_groups(network: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay is for matrices: biases and embeddings go without."""
    plain = {id(p) for m in network.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    plain |= {id(p) for name, p in network.named_parameters() if name.endswith("bias")}
    return [
        {"params": [p for p in network.parameters() if id(p) not in plain], "weight_decay": weight_decay},
        {"params": [p for p in network.parameters() if id(p) in plain], "weight_decay": 0.0},
    ]
