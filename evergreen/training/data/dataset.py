"""A training set, encoded once and mapped into the memory of every rank.

The first rank of a machine that opens a job's rows makes them: the preprocessing is learnt a column at a time, the rows
are encoded a stretch at a time, and both go into a folder of files that appears whole or not at all. The others, and
later runs of the job, map those files; what one process has read all of them share, and rows that do not fit in memory
stay on disk. A step then gathers rows by number. Called by `run/worker.py`. To hold rows in another form, change `_FIELDS`.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.training.artifact import sync_folder, write_durably
from evergreen.training.data import label as labels
from evergreen.training.data import preprocessing
from evergreen.training.data.columns import Columns, Snapshot
from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Encoder, Preprocessing
from evergreen.training.data.teacher import Teacher
from evergreen.training.network.model import Rows
from evergreen.training.predictor import Predictor
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.processes import locked

_FIELDS: dict[str, type[np.generic]] = {
    "numeric": np.float32,
    "missing": np.float32,
    "categories": np.int64,
    "targets": np.float32,
}
_PARTS = ("training", "validation")


@dataclass(frozen=True)
class Part:
    """Some rows, oldest first, as tensors over mapped files or on a device."""

    rows: Rows
    targets: torch.Tensor
    """(rows, 1 + auxiliary): the label's, see `Label.targets`, then 0 or 1 a threshold, NaN where unknown."""

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def size_bytes(self) -> int:
        """Of all tensors."""
        return sum(
            tensor.nbytes for tensor in (self.rows.numeric, self.rows.missing, self.rows.categories, self.targets)
        )

    def to(self, device: torch.device) -> "Part":
        """Held on a device."""
        rows = Rows(self.rows.numeric.to(device), self.rows.missing.to(device), self.rows.categories.to(device))
        return Part(rows, self.targets.to(device))


@dataclass(frozen=True)
class Dataset:
    """What a job learns from."""

    fitted: Preprocessing
    label: Label
    training: Part
    validation: Part


def open_dataset(job: TrainingJob, folder: Path) -> Dataset:
    """Map the job's rows from `folder`, making them first where they are not there yet.

    Raises `DataError` as `Snapshot`, `label.fit`, `preprocessing.fit` and `Teacher` do.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock"), lambda: None):
        if not folder.is_dir():
            _make(job, folder)
    fitted = Preprocessing.model_validate_json((folder / "preprocessing.json").read_bytes())
    label = Label.model_validate_json((folder / "label.json").read_bytes())
    return Dataset(fitted, label, *(_map(folder, part) for part in _PARTS))


def _make(job: TrainingJob, folder: Path) -> None:
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover)
    scratch.mkdir(parents=True)
    thresholds = job.spec.train.auxiliary_thresholds
    snapshot = Snapshot(job.training_set, job.base.since if job.base is not None else None)
    label, fitted = _recipe(job, snapshot)
    teacher = Teacher(job, snapshot) if job.spec.train.teacher_share else None
    encoder = Encoder(fitted)
    outputs = 1 + len(thresholds)
    widths = (len(fitted.numerics), encoder.indicators, len(fitted.categoricals), outputs)
    rows = (int(snapshot.trains.sum()), int(snapshot.validates.sum()))
    files = [
        {
            field: np.lib.format.open_memmap(scratch / f"{part}.{field}.npy", "w+", kind, (count, width))
            for (field, kind), width in zip(_FIELDS.items(), widths, strict=True)
        }
        for part, count in zip(_PARTS, rows, strict=True)
    ]
    filled, days = [0, 0], snapshot.days[snapshot.trains]
    for training, validation in snapshot.stretches():
        if teacher is not None and len(training):
            training = teacher.taught(training, days[filled[0] : filled[0] + len(training)])
        for i, columns in enumerate((training, validation)):
            if len(columns):
                _fill(files[i], filled[i], encoder, label, columns, thresholds)
                filled[i] += len(columns)
    for part in files:
        for file in part.values():
            file.flush()
    write_durably(scratch / "preprocessing.json", fitted.model_dump_json().encode())
    write_durably(scratch / "label.json", label.model_dump_json().encode())
    scratch.rename(folder)
    sync_folder(folder.parent)


def _recipe(job: TrainingJob, snapshot: Snapshot) -> tuple[Label, Preprocessing]:
    """Learnt from the rows that train, or the base's: its weights know no other."""
    learnt = snapshot.trains
    if job.base is not None:
        described = Predictor.load(job.base.uri, job.base.digest).description
        labels.require_known(job.spec, described.label, snapshot.labels(learnt | snapshot.validates))
        return described.label, described.preprocessing
    label = labels.fit(job.spec, snapshot.labels(learnt), snapshot.labels(snapshot.validates))
    return label, preprocessing.fit(snapshot.numerics(learnt), snapshot.categoricals(learnt), job.training_set.features)


def _fill(
    files: dict[str, "np.memmap[tuple[int, int], np.dtype[np.generic]]"],
    start: int,
    encoder: Encoder,
    label: Label,
    columns: Columns,
    thresholds: tuple[float, ...],
) -> None:
    encoded = encoder.encode_columns(columns.numerics, columns.categoricals)
    part = slice(start, start + len(columns))
    files["numeric"][part] = encoded.numeric
    files["missing"][part] = encoded.missing
    files["categories"][part] = encoded.categories
    files["targets"][part] = targets_of(label, columns, thresholds)


def targets_of(label: Label, columns: Columns, thresholds: tuple[float, ...]) -> NDArray[np.float32]:
    """(rows, 1 + thresholds): the label's, then whether the auxiliary label is at least each of them, NaN where unknown."""
    targets = [label.targets(columns.labels)]
    if thresholds:
        if columns.auxiliary is None:
            raise DataError(
                "[train].auxiliary_thresholds are set, but the training set has no column `auxiliary`. Build it again: "
                "it was made before [data].auxiliary_label was."
            )
        unknown = np.isnan(columns.auxiliary)
        targets += [np.where(unknown, np.nan, columns.auxiliary >= limit).astype(np.float32) for limit in thresholds]
    return np.stack(targets, axis=1)


def _map(folder: Path, part: str) -> Part:
    # Copy on write: torch takes no memory it may not write to, and nobody writes.
    numeric, missing, categories, targets = (
        torch.from_numpy(np.load(folder / f"{part}.{field}.npy", mmap_mode="c")) for field in _FIELDS
    )
    return Part(Rows(numeric, missing, categories), targets)
