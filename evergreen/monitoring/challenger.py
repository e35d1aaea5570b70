"""Would a new model be better? A challenger that learnt up to a window, beside the champion in it: days neither has seen.

The strongest sign known that a retrain pays: it asks for the gain itself, where drift and decay ask for what may or may
not lead to one. Paired by day, as at the gate. Pure; the challenger is made in `tasks/challenger.py`, in a backtest it is
one of the models that are there. To have another kind made, see `[monitor].challenger`.
"""

import numpy as np
from numpy.typing import NDArray

from evergreen.figures import Floats, row_losses
from evergreen.paired import PairedDifference, ratio_of_totals
from evergreen.types import Task


def paired_by_day(
    task: Task, moments: NDArray[np.datetime64], labels: Floats, challenger: Floats, champion: Floats
) -> PairedDifference:
    """How the challenger's loss differs from the champion's on the same rows, UTC days being the sample.

    `moments` and `labels` are (rows,), scores as `evergreen.figures` says for the task. There must be a row.
    """
    difference = row_losses(task, labels, challenger) - row_losses(task, labels, champion)
    _, day = np.unique(moments.astype("datetime64[D]"), return_inverse=True)
    rows: Floats = np.bincount(day).astype(np.float64)
    return ratio_of_totals(np.bincount(day, weights=difference).astype(np.float64), rows)
