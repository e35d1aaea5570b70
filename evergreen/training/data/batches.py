"""Which rows a step sees, and which randomness: both a pure function of the seed and the step.

Nothing here has state, so a resumed run needs nothing but its step to go on exactly where it stopped. Nothing here
knows how many ranks there are until a batch is split, so one rank and four see the same rows in the same order under
the same dropout. Free of torch. Called by `loop.py`.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_ORDER, _NOISE = 0, 1
"""Separate random streams of one seed."""
CATEGORY_DROPOUT = 0.01
"""This share of the categories is hidden while training, so that the place of unseen ones learns what is typical."""
_LEVELS = 1 << 16
_BLOCK = 128


@dataclass(frozen=True)
class Noise:
    """What is added to, and left out of, a batch while training."""

    numeric: NDArray[np.float32]
    """(rows, numerics), standard normal."""
    hide: NDArray[np.bool_]
    """(rows, categoricals): take the category for unseen."""
    keep: tuple[NDArray[np.bool_], ...]
    """A hidden layer each, (rows, units): what dropout leaves."""

    def __getitem__(self, rows: slice) -> "Noise":
        return Noise(self.numeric[rows], self.hide[rows], tuple(mask[rows] for mask in self.keep))


@dataclass
class BatchOrder:
    """Every epoch visits each row once, in an order of its own; the last batch of an epoch may be short."""

    rows: int
    batch_size: int
    epochs: int
    seed: int
    _permutation: tuple[int, NDArray[np.int64]] = field(default=(-1, np.empty(0, dtype=np.int64)), repr=False)

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch, the short one included."""
        return -(-self.rows // self.batch_size)

    @property
    def steps(self) -> int:
        """Batches in all."""
        return self.steps_per_epoch * self.epochs

    def epoch(self, step: int) -> int:
        """The epoch a step belongs to, from 0."""
        return step // self.steps_per_epoch

    def ends_epoch(self, steps_done: int) -> bool:
        """True when this many steps are whole epochs."""
        return steps_done % self.steps_per_epoch == 0

    def global_batch(self, step: int) -> NDArray[np.int64]:
        """Row numbers of a step over all ranks together."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return self._order(self.epoch(step))[start : start + self.batch_size]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if self._permutation[0] != epoch:
            self._permutation = (epoch, _stream(self.seed, _ORDER, epoch).permutation(self.rows))
        return self._permutation[1]


def share_of(rank: int, ranks: int, rows: int) -> slice:
    """One rank's part of a batch: parts are disjoint, cover it, and differ by one row at most (a part may be empty)."""
    return slice(rank * rows // ranks, (rank + 1) * rows // ranks)


def noise_for(
    seed: int, step: int, rows: slice, *, numerics: int, categoricals: int, hidden: tuple[int, ...], dropout: float
) -> Noise:
    """The randomness of some rows of a step's global batch: the same however the batch is split.

    Drawn in blocks of `_BLOCK` rows with a stream each, so that a rank draws for its own rows and few others.
    """
    skipped = rows.start % _BLOCK
    blocks = -(-(rows.stop - rows.start + skipped) // _BLOCK)
    noise = Noise(
        numeric=np.empty((blocks * _BLOCK, numerics), dtype=np.float32),
        hide=np.empty((blocks * _BLOCK, categoricals), dtype=np.bool_),
        keep=tuple(np.empty((blocks * _BLOCK, units), dtype=np.bool_) for units in hidden),
    )
    for block in range(blocks):
        place = slice(block * _BLOCK, (block + 1) * _BLOCK)
        _draw(_stream(seed, _NOISE, step, rows.start // _BLOCK + block), noise[place], round(dropout * _LEVELS))
    return noise[slice(skipped, skipped + rows.stop - rows.start)]


def _draw(stream: np.random.Generator, block: Noise, threshold: int) -> None:
    stream.standard_normal(dtype=np.float32, out=block.numeric)
    np.less(stream.random(block.hide.shape, dtype=np.float32), CATEGORY_DROPOUT, out=block.hide)
    for mask in block.keep:
        np.greater_equal(stream.integers(0, _LEVELS, mask.shape, dtype=np.uint16), threshold, out=mask)


def _stream(seed: int, purpose: int, position: int, block: int = 0) -> np.random.Generator:
    """A counter-based generator: any position's numbers without drawing those before (Salmon et al. 2011, Philox)."""
    key = np.array([seed % (1 << 64), purpose], dtype=np.uint64)  # a list with so large a number would become floats
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, block, position]))
