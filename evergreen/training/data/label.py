"""What a label is, by task: fitted on the training rows, and part of `model.json`.

Binary: 0 or 1, one output. Multiclass: a class from 0 up, an output each. Regression: a number, one output, learnt as
its distance from the mean in standard deviations, so that learning rates and weights mean the same for minutes and for
millions. Free of torch; losses and answers are `network/objective.py`. To add a task, see `evergreen/figures.py` as well.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.figures import LABELS, odd_labels
from evergreen.spec import ModelSpec
from evergreen.types import Fact, Task


class Label(Fact):
    """How the network's first outputs and the label belong together."""

    task: Task = "binary"
    classes: tuple[str, ...] = ()
    """Names of the classes in order of their outputs; empty unless multiclass."""
    mean: float = 0.0
    """Of a regression's training labels."""
    scale: float = 1.0
    """Their standard deviation."""

    @property
    def outputs(self) -> int:
        """Logits a row."""
        return max(len(self.classes), 1)

    def targets(self, labels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows,) what the network learns: 0 or 1, the class's number, or standard deviations from the mean."""
        return ((labels.astype(np.float64) - self.mean) / self.scale).astype(np.float32)


def require_known(spec: ModelSpec, label: Label, labels: NDArray[np.float32]) -> None:
    """Raise `DataError` where one of `labels` (rows,) is none that a model with `label` could answer."""
    found = labels.astype(np.float64)
    wrong = odd_labels(label.task, found)
    if label.task == "multiclass":
        wrong |= found >= len(label.classes)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum()):,} of {len(labels):,} labels of {spec.name!r} are not among what its champion answers (the "
            f"first is {found[wrong][0]:g}). Retrain it from the beginning: remedy=retrain."
        )


def fit(spec: ModelSpec, training: NDArray[np.float32], validation: NDArray[np.float32]) -> Label:
    """Learn what there is to know of the training rows' labels.

    Both are (rows,), NaN where there is no finite number. Raises `DataError` when a label is not one of the spec's task, or
    when the training rows do not show what has to be learnt: both values, every class, or more than one number.
    """
    task = spec.model.task
    labels = np.concatenate([training, validation]).astype(np.float64)
    wrong = odd_labels(task, labels)
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum()):,} of {len(labels):,} labels of {spec.name!r} are not {LABELS[task]} (the first is "
            f"{labels[wrong][0]:g}); [model].task is {task!r}. Check [data].label in the model's file."
        )
    if not len(training) or training.min() == training.max():
        needs = {"binary": "both", "multiclass": "two classes at least", "regression": "numbers that differ"}
        raise DataError(
            f"all {len(training):,} training rows of {spec.name!r} have label "
            f"{f'{training[0]:g}' if len(training) else 'none'}; a {task} model needs {needs[task]}. Check the labels table "
            "or widen the training window."
        )
    if task == "multiclass":
        return Label(task=task, classes=_classes(spec, training, int(labels.max()) + 1))
    if task == "regression":
        return Label(
            task=task, mean=float(training.mean(dtype=np.float64)), scale=float(training.std(dtype=np.float64))
        )
    return Label()


def _classes(spec: ModelSpec, training: NDArray[np.float32], shown: int) -> tuple[str, ...]:
    """Names of the classes; every one needs a training row, since nobody learns what it never saw."""
    names: Sequence[str] = spec.data.classes or [str(number) for number in range(shown)]
    if shown > len(names):
        raise DataError(
            f"{spec.name!r} has labels up to {shown - 1}, but [data].classes names {len(names)} classes: "
            f"{', '.join(names)}. Name all of them in the model's file, in order from 0."
        )
    rows = np.bincount(training.astype(np.int64), minlength=len(names))
    empty = [
        f"{number} ({name})" if name != str(number) else name for number, name in enumerate(names) if not rows[number]
    ]
    if empty:
        raise DataError(
            f"of the classes 0 to {len(names) - 1} of {spec.name!r}, {', '.join(empty)} has no training row. Number the "
            "classes without gaps, merge a rare one into another, or widen the training window."
        )
    return tuple(names)
