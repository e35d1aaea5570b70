"""What a model leans on: how much its loss rises when one feature is shuffled among held-out rows.

Permutation importance (Breiman 2001, "Random Forests"; Fisher, Rudin & Dominici 2019, "All Models are Wrong, but Many are
Useful"), with days as the unit of its error, as everywhere in the gate. A feature is shuffled over all rows, so that what it
says of a whole day is broken too. Two features that say the same stand in for each other and both look idle: the table says
what this model would lose, not what the data holds.

Pure numpy: the model comes as a function. Called by `tasks/gate.py`; read by the verdict's page, the card, and whoever weighs
drift by importance.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evergreen.evaluation import sound
from evergreen.figures import Floats, checked, row_losses
from evergreen.paired import ratio_of_totals
from evergreen.types import Attribution, FeatureImportance, Task

Columns = Mapping[str, NDArray[Any]]


def attribute(
    score: Callable[[Columns], Floats],
    columns: Columns,
    labels: ArrayLike,
    days: NDArray[Any],
    task: Task,
    *,
    seed: int,
) -> Attribution:
    """Shuffle one of `columns` after another, each (rows,), and score again.

    `score` answers as the task has it (see `figures.py`); `days` (rows,) are dates or moments in UTC as `datetime64`. The same
    seed shuffles a feature the same way whatever the other features are. Raises `DataError` as `evaluate` does.
    """
    truth, told = checked(task, labels, sound(task, score(columns))[0])
    losses = row_losses(task, truth, told)
    _, place = np.unique(np.asarray(days).astype("datetime64[D]"), return_inverse=True)
    rows_a_day = np.bincount(place).astype(np.float64)
    found = []
    for name, values in columns.items():
        order = np.random.default_rng((seed, zlib.crc32(name.encode()))).permutation(len(truth))
        _, shuffled = checked(task, labels, sound(task, score({**columns, name: values[order]}))[0])
        rises = np.bincount(place, weights=row_losses(task, truth, shuffled) - losses).astype(np.float64)
        rise = ratio_of_totals(rises, rows_a_day)
        error = rise.error if rise.days > 1 else None
        found.append(FeatureImportance(feature=name, rise=rise.mean, error=error))
    return Attribution(
        features=tuple(sorted(found, key=lambda one: (-one.rise, one.feature))),
        rows=len(truth),
        days=len(rows_a_day),
        loss=float(losses.mean()),
        seed=seed,
    )
