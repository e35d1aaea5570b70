"""A network as a program of its own: compiled by ONNX Runtime or by torch's Inductor ahead of time.

The program is made once, on request, and lies in the artifact beside the weights it was made from, under the same digest
and signature; it is run only from bytes that were verified, for a compiled one is native code. Called by `variants.py`. The
only module that imports ONNX Runtime, an extra of this project.
"""

import platform
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evergreen.errors import ArtifactError
from evergreen.training.network.fused import FusedNetwork
from evergreen.training.network.model import Network, Rows

TRACED_ROWS = 4
NAMES = ("numeric", "missing", "categories")
COMPILERS = ("g++", "clang++", "c++")


class Flat(nn.Module):
    """Tensors in place of `Rows`, which no traced graph can take."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.fused = FusedNetwork(network)

    def forward(self, numeric: Tensor, missing: Tensor, categories: Tensor) -> Tensor:
        """(members, rows, outputs) logits."""
        return self.fused(Rows(numeric, missing, categories))  # type: ignore[no-any-return]


def exported(network: Network) -> torch.export.ExportedProgram:
    """The graph that `torch.export` takes of a network, for any number of rows."""
    rows = torch.export.Dim("rows", min=1)
    return torch.export.export(Flat(network), _example(network), dynamic_shapes=({0: rows}, {0: rows}, {0: rows}))


def onnx_absent() -> str | None:
    """Why ONNX Runtime cannot run here; None where it can."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return "ONNX Runtime is not installed; pip install 'evergreen[onnx]'"
    return None


def onnx_program(network: Network) -> bytes:
    """An ONNX model of the network's answers, for any number of rows."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # its successor wants more packages
        path = Path(folder) / "program.onnx"
        torch.onnx.export(
            Flat(network).eval(),
            _example(network),
            path,
            dynamo=False,
            input_names=list(NAMES),
            output_names=["logits"],
            dynamic_axes={name: {0: "rows"} for name in NAMES} | {"logits": {1: "rows"}},
        )
        return path.read_bytes()


class OnnxProgram(nn.Module):
    """Rows → (members, rows, outputs) logits, by ONNX Runtime on one thread."""

    def __init__(self, program: bytes) -> None:
        super().__init__()
        if (why := onnx_absent()) is not None:
            raise ArtifactError(f"the artifact is an ONNX model, and {why}.")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
        self._names = [one.name for one in self._session.get_inputs()]

    def forward(self, rows: Rows) -> Tensor:
        """See the class."""
        given = dict(zip(NAMES, (rows.numeric, rows.missing, rows.categories), strict=True))
        (logits,) = self._session.run(None, {name: given[name].numpy() for name in self._names})
        return torch.from_numpy(logits)


def compiler_absent() -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if not any(shutil.which(name) for name in COMPILERS):
        return f"it takes a C++ compiler ({', '.join(COMPILERS)}), and there is none; install g++"
    return None


def this_machine() -> str:
    """What a compiled program is bound to: processor, its vector instructions, and the torch whose library it calls."""
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


def compiled_program(network: Network) -> bytes:
    """Machine code of the network's answers for `this_machine` (AOTInductor); takes half a minute and more."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), torch._inductor.config.patch(compile_threads=1):
        path = str(Path(folder) / "program.pt2")
        torch._inductor.aoti_compile_and_package(exported(network), package_path=path)
        return Path(path).read_bytes()


class CompiledProgram(nn.Module):
    """Rows → (members, rows, outputs) logits, by native code."""

    def __init__(self, program: bytes) -> None:
        super().__init__()
        with tempfile.TemporaryDirectory() as folder:  # it is read whole, and the verified bytes are what is read
            path = Path(folder) / "program.pt2"
            path.write_bytes(program)
            self._run: Any = torch._inductor.aoti_load_package(str(path))

    def forward(self, rows: Rows) -> Tensor:
        """See the class."""
        # Its code reads memory in the order of the example it was compiled for, and does not look whether it is so.
        return self._run(*(part.contiguous() for part in (rows.numeric, rows.missing, rows.categories)))  # type: ignore[no-any-return]


def _example(network: Network) -> tuple[Tensor, Tensor, Tensor]:
    shape = network.shape
    return (
        torch.zeros(TRACED_ROWS, shape.numerics),
        torch.zeros(TRACED_ROWS, shape.indicators),
        torch.zeros(TRACED_ROWS, len(shape.cardinalities), dtype=torch.int64),
    )
