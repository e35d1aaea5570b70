"""Groups of rows, day by day: what it takes to say whether a model treats them alike.

Pure numpy. Called by `tasks/gate.py` where `[gate.fairness]` names a column; judged by `gate/fairness.py`.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evergreen.evaluation import value_name
from evergreen.figures import checked, row_losses
from evergreen.types import GroupDay, Task


def count_groups(
    names: Sequence[object],
    labels: ArrayLike,
    scores: ArrayLike,
    days: NDArray[Any],
    *,
    threshold: float,
    task: Task = "binary",
) -> dict[str, dict[date, GroupDay]]:
    """Each group's days: rows, summed loss, and of a binary model who was selected.

    `names` (rows,) the group of each row, `labels` and `scores` as `figures.py` says for the task, `days` (rows,) dates or
    moments in UTC as `datetime64`; a row is selected from a score of `threshold` on. Raises `DataError` as `score_rows` does.
    """
    labels, scores = checked(task, labels, scores)
    losses = row_losses(task, labels, scores)
    binary = task == "binary"
    positive = labels == 1 if binary else np.zeros(len(labels), dtype=np.bool_)
    selected = scores >= threshold if binary else positive
    group, named = np.unique(np.array([value_name(name) for name in names], dtype=object), return_inverse=True)
    calendar, place = np.unique(np.asarray(days).astype("datetime64[D]"), return_inverse=True)
    cell = named * len(calendar) + place

    def summed(values: NDArray[Any]) -> NDArray[np.float64]:
        totals = np.bincount(cell, weights=values, minlength=len(group) * len(calendar))
        return totals.reshape(len(group), -1).astype(np.float64)

    rows, loss, chosen, ones, hits = map(
        summed, (np.ones(len(labels)), losses, selected, positive, selected & positive)
    )
    moments = calendar.tolist()
    return {
        str(name): {
            moments[d]: GroupDay(
                rows=int(rows[g, d]),
                loss_sum=float(loss[g, d]),
                selected=int(chosen[g, d]),
                positives=int(ones[g, d]),
                true_positives=int(hits[g, d]),
            )
            for d in np.flatnonzero(rows[g])
        }
        for g, name in enumerate(group)
    }
