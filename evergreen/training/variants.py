"""Other ways to run the same weights: what an artifact's `variant` means. Called by `predictor.py` when it loads one.

Each takes rows and gives (members, rows, outputs) logits in float32, as the network itself would but for its rounding. That
one is faster is never taken for granted: `flows/optimise.py` has each judged beside its parent. To add one, add it to
`VARIANTS`. Not here: AOTInductor, whose program is compiled for a minute and has no place in an artifact of weights.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from evergreen.training.fused import FusedNetwork
from evergreen.training.model import Network, Rows

Variant = Literal["plain", "bfloat16", "int8", "exported"]
TRACED_ROWS = 4


def as_variant(network: Network, variant: Variant) -> nn.Module:
    """The network in another form; it takes `Rows`."""
    return VARIANTS[variant](network.eval()).eval()


class BFloat16(nn.Module):
    """Weights and sums in bfloat16: half the memory to read, eight bits of precision."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.fused = FusedNetwork(network).to(torch.bfloat16)

    def forward(self, rows: Rows) -> Tensor:
        """See the module."""
        half = Rows(rows.numeric.bfloat16(), rows.missing.bfloat16(), rows.categories)
        return self.fused(half).float()  # type: ignore[no-any-return]


class Exported(nn.Module):
    """The graph that `torch.export` takes of the network, for any number of rows."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        shape = network.shape
        example = (
            torch.zeros(TRACED_ROWS, shape.numerics),
            torch.zeros(TRACED_ROWS, shape.indicators),
            torch.zeros(TRACED_ROWS, len(shape.cardinalities), dtype=torch.int64),
        )
        rows = torch.export.Dim("rows", min=1)
        program = torch.export.export(_Flat(network), example, dynamic_shapes=({0: rows}, {0: rows}, {0: rows}))
        self.graph = program.module()

    def train(self, mode: bool = True) -> "Exported":
        """An exported graph was traced as it answers, and refuses to be switched."""
        self.training = mode
        return self

    def forward(self, rows: Rows) -> Tensor:
        """See the module."""
        return self.graph(rows.numeric, rows.missing, rows.categories)  # type: ignore[no-any-return]


class _Flat(nn.Module):
    """Tensors in place of `Rows`, which an exported graph cannot take."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.fused = FusedNetwork(network)

    def forward(self, numeric: Tensor, missing: Tensor, categories: Tensor) -> Tensor:
        """See `Exported`."""
        return self.fused(Rows(numeric, missing, categories))  # type: ignore[no-any-return]


def _int8(network: Network) -> nn.Module:
    """Dynamic quantization: weights of the linear layers as int8, what flows into them quantized row by row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it moves to another package; the pinned torch has it still
        quantize: Callable[..., nn.Module] = torch.ao.quantization.quantize_dynamic
        return quantize(network, {nn.Linear}, dtype=torch.qint8)


VARIANTS: Mapping[Variant, Callable[[Network], nn.Module]] = {
    "plain": FusedNetwork,
    "bfloat16": BFloat16,
    "int8": _int8,
    "exported": Exported,
}
