"""Logits → probabilities that mean what they say: two numbers learnt from the latest rows before the holdout.

Platt scaling (Platt 1999): sigmoid(scale * logit + shift). The scale is one over a temperature; the shift follows a
base rate that has moved since most of the training rows. Pure numpy. Called by `worker.py` and `predictor.py`.
"""

import numpy as np
from numpy.typing import NDArray

from evergreen.types import Fact

MIN_ROWS = 200
"""With fewer rows, or without any of one class, logits are taken as they are."""
_PRIOR = 10.0
"""Pulls towards "change nothing" as if so many rows had been seen: little data moves little."""


class Calibration(Fact):
    """What turns a logit into a probability."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows,) probabilities."""
        z = self.scale * logits + self.shift
        return 0.5 * (1.0 + np.tanh(0.5 * z))


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.float64]) -> Calibration:
    """The maximum a posteriori scale and shift, by Newton's method (two dimensions, convex: a dozen steps are plenty)."""
    if len(labels) < MIN_ROWS or labels.min() == labels.max():
        return Calibration()
    design = np.stack([logits, np.ones_like(logits)], axis=1)
    unchanged = np.array([1.0, 0.0])
    theta = unchanged.copy()
    for _ in range(25):
        probabilities = Calibration(scale=float(theta[0]), shift=float(theta[1]))(logits)
        gradient = design.T @ (probabilities - labels) + _PRIOR * (theta - unchanged)
        weights = probabilities * (1.0 - probabilities)
        curvature = (design * weights[:, None]).T @ design + _PRIOR * np.eye(2)
        theta = theta - np.linalg.solve(curvature, gradient)
    if not np.isfinite(theta).all() or theta[0] <= 0.0:
        return Calibration()  # scores that rank the latest rows backwards: turning them around would hide it
    return Calibration(scale=float(theta[0]), shift=float(theta[1]))
