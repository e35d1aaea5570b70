"""A teacher for the network: boosted trees that say of each training row what they would have answered.

A label is one draw of what might have happened; the trees' probability is steadier, and a network that learns from both
is calibrated as they are without giving up what it ranks better (distillation, Hinton et al. 2015). Trees say of a row
only what they know without its day (cross-fitting, as in Wolpert 1992), since rows of one day are alike and what was
learnt by heart teaches nothing. Validation rows keep their labels. Free of torch. Called by `dataset.py`, once a job.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.adapters import boosted_trees
from evergreen.errors import DataError, SpecError
from evergreen.training.data.columns import Columns, Snapshot
from evergreen.training.data.preprocessing import Coded
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.processes import tell

ROWS = 400_000
"""Of more the trees learn from every second, third, … row; they speak of all."""


class Teacher:
    """Trees that have learnt a job's training rows, fold by fold.

    Raises `SpecError` where LightGBM is not installed and `DataError` where the training rows do not reach over all folds.
    """

    def __init__(self, job: TrainingJob, snapshot: Snapshot) -> None:
        self._share, self._features = job.spec.train.teacher_share, job.training_set.features
        if not boosted_trees.installed():
            raise SpecError(
                f"[train].teacher_share of {job.spec.name!r} is {self._share:g}, but its teacher is not installed: pip install "
                "'evergreen[lightgbm]', or take the key out of the model's file."
            )
        training = np.flatnonzero(snapshot.trains)
        learnt = np.zeros_like(snapshot.trains)
        learnt[training[:: -(-len(training) // ROWS)]] = True
        days = snapshot.days[learnt]
        if len(np.unique(boosted_trees.fold_of(days))) < boosted_trees.FOLDS:
            raise DataError(
                f"the training rows of {job.spec.name!r} are of {len(np.unique(days))} days; [train].teacher_share needs "
                f"{boosted_trees.FOLDS} days in a row at least. Widen the training window, or take the key out."
            )
        started = time.monotonic()
        rows = self._frame(snapshot.numerics(learnt), snapshot.categoricals(learnt))
        task: Literal["binary", "regression"] = "regression" if job.spec.model.task == "regression" else "binary"
        self._trees = boosted_trees.cross_fit(task, rows, snapshot.labels(learnt), days, self._features)
        lengths = ", ".join(str(fold.booster.num_trees()) for fold in self._trees.folds)
        tell(
            f"boosted trees learnt {len(days):,} rows in {time.monotonic() - started:.0f} s ({lengths} trees) and teach"
        )

    def taught(self, columns: Columns, days: NDArray[np.datetime64]) -> Columns:
        """Training rows whose labels are mixed with what the trees say of them; `days` (rows,)."""
        told = self._trees.scores(self._frame(columns.numerics, columns.categoricals), days)
        mixed = (1 - self._share) * columns.labels + self._share * told
        return replace(columns, labels=mixed.astype(np.float32))

    def _frame(self, numerics: Mapping[str, NDArray[np.float32]], categoricals: Mapping[str, Coded]) -> pd.DataFrame:
        return pd.DataFrame(
            {
                name: numerics[name] if kind == "numeric" else _keys(categoricals[name])
                for name, kind in self._features.items()
            }
        )


def _keys(column: Coded) -> NDArray[np.object_]:
    """(rows,) the category of each, None where missing."""
    return np.array([*column.keys, None], dtype=object)[column.codes]
