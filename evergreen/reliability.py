"""What was said beside what came true, bin by bin: the points of a reliability diagram (DeGroot & Fienberg 1983).

Pure numpy. Called by `tasks/gate.py` for candidate and champion on the same holdout; drawn by `adapters/plots.py`.
"""

import numpy as np
from numpy.typing import ArrayLike

from evergreen.types import ReliabilityBin

BINS = 10


def reliability(labels: ArrayLike, scores: ArrayLike) -> tuple[ReliabilityBin, ...]:
    """Bins of equal width over [0, 1], the empty ones left out.

    `labels` (rows,) of 0 and 1, `scores` (rows,) probabilities that the label is 1.
    """
    truth, guess = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    place = np.minimum((guess * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    said = np.bincount(place, weights=guess, minlength=BINS)
    came = np.bincount(place, weights=truth, minlength=BINS)
    return tuple(
        ReliabilityBin(rows=int(counts[b]), mean_score=said[b] / counts[b], share=came[b] / counts[b])
        for b in range(BINS)
        if counts[b]
    )
