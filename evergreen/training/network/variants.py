"""Other ways to run the same weights: what an artifact's `variant` means. Called by `predictor.py`.

Each takes rows and gives (members, rows, outputs) logits in float32, as the network itself would but for its rounding;
`pruned` alone gives others. That one is faster is never taken for granted: `flows/optimise.py` has each judged beside its
parent. To add one, add it to `VARIANTS`.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evergreen.training.network import programs, pruning
from evergreen.training.network.fused import FusedNetwork
from evergreen.training.network.model import Network, Rows


def nothing() -> None:
    """Nothing is absent."""


@dataclass(frozen=True)
class Way:
    """How a variant is made of a network, and how it runs."""

    run: Callable[[Network, bytes | None], nn.Module]
    """From the network and the variant's program to what takes `Rows`."""
    reshaped: Callable[[Network], Network] | None = None
    """The network it is made of in place of its parent's."""
    program: Callable[[Network], bytes] | None = None
    """What lies in its artifact beside the weights."""
    exact: bool = False
    """It rounds as its parent does, so that its answers have to be its parent's."""
    bound: bool = False
    """Its program runs on machines like the one it was made on alone."""
    absent: Callable[[], str | None] = nothing
    """Why it cannot be made here; None where it can."""


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
    """The graph that `torch.export` takes of the network."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.graph = programs.exported(network).module()

    def train(self, mode: bool = True) -> "Exported":
        """An exported graph was traced as it answers, and refuses to be switched."""
        self.training = mode
        return self

    def forward(self, rows: Rows) -> Tensor:
        """See the module."""
        return self.graph(rows.numeric, rows.missing, rows.categories)  # type: ignore[no-any-return]


def _int8(network: Network) -> nn.Module:
    """Dynamic quantization: weights of the linear layers as int8, what flows into them quantized row by row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it moves to another package; the pinned torch has it still
        quantize: Callable[..., nn.Module] = torch.ao.quantization.quantize_dynamic
        return quantize(network, {nn.Linear}, dtype=torch.qint8)


VARIANTS: Mapping[str, Way] = {
    "plain": Way(lambda network, _: FusedNetwork(network)),
    "bfloat16": Way(lambda network, _: BFloat16(network)),
    "int8": Way(lambda network, _: _int8(network)),
    "exported": Way(lambda network, _: Exported(network), exact=True),
    "pruned": Way(lambda network, _: FusedNetwork(network), reshaped=pruning.pruned),
    "onnx": Way(
        lambda _, program: programs.OnnxProgram(program or b""),
        program=programs.onnx_program,
        exact=True,
        absent=programs.onnx_absent,
    ),
    "compiled": Way(
        lambda _, program: programs.CompiledProgram(program or b""),
        program=programs.compiled_program,
        exact=True,
        bound=True,
        absent=programs.compiler_absent,
    ),
}
"""By name: bfloat16, int8 dynamic quantization, `torch.export`'s graph, half of the hidden units, ONNX Runtime, AOTInductor."""
