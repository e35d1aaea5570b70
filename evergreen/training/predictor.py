"""A finished model, ready to score: cells in, probabilities or numbers out.

The same preprocessing and network code as in training, loaded from an artifact whose bytes were verified; no pickle
anywhere. Called by serving, by evaluation, and by MLflow, which finds `_load_pyfunc` by this module's name.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from threadpoolctl import threadpool_limits
from torch import nn

from evergreen.errors import ArtifactError, DataError
from evergreen.recalibration import recalibrated
from evergreen.training.artifact import MODEL_FILE, PROGRAM_FILE, WEIGHTS_FILE, read_artifact
from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Coded, Column, Encoded, Encoder, Preprocessing
from evergreen.training.network.few import FEW_ROWS, FewRows
from evergreen.training.network.fused import FusedNetwork
from evergreen.training.network.model import Network, NetworkShape, Rows, build_network
from evergreen.training.network.objective import answer
from evergreen.training.network.programs import this_machine
from evergreen.training.network.variants import VARIANTS
from evergreen.types import Digest, Fact, Recalibration, Task

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 2
"""Of `model.json`; raised when an older reader would misread it."""


class ModelDescription(Fact):
    """`model.json`: everything of a model but its weights."""

    format: int = FORMAT
    model: str
    shape: NetworkShape
    label: Label = Label()
    preprocessing: Preprocessing
    variant: str = "plain"
    """How the weights are run; see `network/variants.py`."""
    machine: str | None = None
    """What its program runs on alone; None where there is none, or it runs anywhere."""
    recalibration: Recalibration | None = None
    """What the network's answers are moved by, of two classes; None where they stand as they are."""
    lineage: dict[str, Any]
    """What it was made from; see `TrainingJob.lineage`."""


def pack(description: ModelDescription, network: Network) -> dict[str, bytes]:
    """The files of an artifact by name: the same model gives the same bytes."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    return {
        MODEL_FILE: description.model_dump_json().encode(),
        WEIGHTS_FILE: safetensors.torch.save(weights),
    }


def as_variant_of(files: Mapping[str, bytes], variant: str) -> dict[str, bytes]:
    """The files of an artifact like this one that is run another way: other bytes, so another digest.

    Raises `DataError` where there is no such way, or none here.
    """
    if variant not in VARIANTS:
        raise DataError(f"there is no variant {variant!r}; ask for one of {sorted(VARIANTS)}")
    way = VARIANTS[variant]
    if (why := way.absent()) is not None:
        raise DataError(f"the variant {variant!r} cannot be made here: {why}.")
    description, network = _understood(files)
    network = way.reshaped(network) if way.reshaped else network
    update = {"variant": variant, "shape": network.shape, "machine": this_machine() if way.bound else None}
    program = {PROGRAM_FILE: way.program(network.eval())} if way.program else {}
    return pack(description.model_copy(update=update), network) | program


def read_network(path: str | Path, digest: Digest | None = None) -> tuple[ModelDescription, Network]:
    """What lies in an artifact folder; raises as `Predictor.load`."""
    description, network, _ = _read(path, digest)
    return description, network


def _read(path: str | Path, digest: Digest | None) -> tuple[ModelDescription, Network, bytes | None]:
    files = read_artifact(Path(path), digest)
    try:
        found = json.loads(files[MODEL_FILE])
        if found.get("format") != FORMAT:
            raise ArtifactError(
                f"the artifact in {path} has format {found.get('format')}, this code reads {FORMAT}. "
                "Score it with the version of the code that made it, or train it again."
            )
        description, network = _understood(files)
    except (ValidationError, ValueError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"the artifact in {path} cannot be read: {error}. Train it again.") from error
    return description, network, files.get(PROGRAM_FILE)


def _understood(files: Mapping[str, bytes]) -> tuple[ModelDescription, Network]:
    description = ModelDescription.model_validate_json(files[MODEL_FILE])
    network = build_network(description.shape)
    network.load_state_dict(safetensors.torch.load(files[WEIGHTS_FILE]))
    return description, network


def _runnable(description: ModelDescription, network: Network, program: bytes | None) -> nn.Module:
    """What answers; raises `ArtifactError` where it cannot run here."""
    way = VARIANTS.get(description.variant)
    if way is None:
        raise ArtifactError(f"the artifact is a variant {description.variant!r}, this code knows {sorted(VARIANTS)}.")
    if description.machine not in (None, this_machine()):
        raise ArtifactError(
            f"the artifact was compiled for {description.machine}, this is {this_machine()}. Release its parent, which runs "
            "anywhere, or make the variant again here (the flow `optimise`)."
        )
    if way.program is not None and program is None:
        raise ArtifactError(f"the artifact is a variant {description.variant!r} without its program. Make it again.")
    return way.run(network.eval(), program).eval()


class Predictor:
    """Scores rows. Nothing in it changes after loading: share it between threads."""

    def __init__(self, description: ModelDescription, network: Network, program: bytes | None = None) -> None:
        self.description = description
        self._encoder = Encoder(description.preprocessing)
        self._network = _runnable(description, network, program)
        # Another variant's way of running it is what was asked for.
        self._few = FewRows(self._network, self.description.label) if isinstance(self._network, FusedNetwork) else None

    @classmethod
    def load(cls, path: str | Path, digest: Digest | None = None) -> Self:
        """Read an artifact folder; with a digest, only if its bytes are the ones it names.

        Raises `ArtifactError` when a file is missing, altered or not understood, or cannot run here. Sets torch and BLAS
        to one thread in this process: a row takes a fraction of a millisecond, and threads of a server must not wait for
        each other's.
        """
        torch.set_num_threads(1)
        threadpool_limits(1, user_api="blas")
        return cls(*_read(path, digest))

    @property
    def inputs(self) -> dict[str, Literal["numeric", "categorical"]]:
        """What it is asked with, in column order; columns it learnt nothing from may be left out."""
        return self.description.preprocessing.features

    @property
    def task(self) -> Task:
        """What it predicts."""
        return self.description.label.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it gives probabilities for, in order; empty unless it is multiclass."""
        return self.description.label.classes

    def columns(self, rows: "pd.DataFrame") -> dict[str, NDArray[Any]]:
        """What it reads of a frame, each (rows,); raises `DataError` naming what is not there."""
        missing = [name for name in self.inputs if name not in rows]
        if missing:
            raise DataError(
                f"a model of {self.description.model!r} reads {missing}, which are not among the rows' columns. Put them back "
                "into its feature service ([data].feature_service and entity_features)."
            )
        return {name: rows[name].to_numpy() for name in self.inputs}

    def score(self, columns: Mapping[str, Column]) -> NDArray[np.float64]:
        """Answers from columns of equal length; other columns are ignored.

        (rows,) probabilities that the label is 1, (rows, classes) probabilities, or (rows,) numbers in the label's unit.
        Numbers may be None or NaN and categories unseen or None. Raises `DataError` naming a column that is missing, of
        another length or not numeric.
        """
        return self._answer(self._encoder.encode_cells(columns))

    def score_columns(
        self, numerics: Mapping[str, NDArray[np.float32]], categoricals: Mapping[str, Coded]
    ) -> NDArray[np.float64]:
        """As `score`, of rows that lie in columnar memory: the same answers, many times faster for many rows."""
        return self._answer(self._encoder.encode_columns(numerics, categoricals))

    def unmoved(self, columns: Mapping[str, Column]) -> NDArray[np.float64]:
        """As `score`, without the recalibration: what another one is fitted on."""
        return self._said(self._encoder.encode_cells(columns))

    def _answer(self, encoded: Encoded) -> NDArray[np.float64]:
        said, moved = self._said(encoded), self.description.recalibration
        return said if moved is None else recalibrated(said, moved)

    def _said(self, encoded: Encoded) -> NDArray[np.float64]:
        if self._few is not None and len(encoded) <= FEW_ROWS:
            return self._few.answer(encoded)
        return answer(self._network, self.description.label, Rows.of(encoded)).numpy()


class PyfuncModel:
    """What MLflow calls."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> NDArray[np.float64]:  # noqa: ARG002
        """As `Predictor.score`, in the frame's order."""
        return self.predictor.score({str(name): model_input[name] for name in model_input.columns})


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(Predictor.load(path))
