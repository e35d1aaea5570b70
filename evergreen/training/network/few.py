"""A few rows through a network in numpy: the same answers, in half of the time.

For a few rows torch takes longer to dispatch an operation than the operation takes. In numpy there is less of that, and the
sums over a number's bins lie ready: below its bin all of them count in full, above it none (`PiecewiseLinearEmbedding`), so
that one is found and one multiplied. Sums come in another order than in `Network`, which is rounding. Called by
`predictor.py`.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from torch import Tensor

from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Encoded
from evergreen.training.network.fused import FusedBins, FusedCategories, FusedLinear, FusedNetwork

FEW_ROWS = 32
"""Up to so many numpy is faster; what more rows take is arithmetic, and torch does that as fast."""
Array = NDArray[np.float32]


class FewRows:
    """Rows → what the network answers; shares the network's weights."""

    def __init__(self, network: FusedNetwork, label: Label) -> None:
        self._label = label
        self._members = network.shape.members
        self._numeric = _Bins(network.numeric) if network.numeric is not None else None
        self._category = _Categories(network.category) if network.category is not None else None
        self._layers = [_Linear(layer) for layer in network.layers]  # type: ignore[arg-type]
        self._deep = _Linear(network.deep, label.outputs)
        self._wide = _Linear(network.wide, label.outputs)

    def answer(self, rows: Encoded) -> NDArray[np.float64]:
        """As `objective.answer`."""
        hidden = inputs = self._inputs(rows)
        for layer in self._layers:
            hidden = layer(hidden)
            np.maximum(hidden, 0.0, out=hidden)
        told = self._deep(hidden)
        told += self._wide(inputs)
        return _said(self._label, told.astype(np.float64))

    def _inputs(self, rows: Encoded) -> Array:
        """(members, rows, inputs): what the members share, then what each makes of it."""
        parts: list[Array] = [rows.numeric, rows.missing]
        if self._numeric is not None:
            parts.append(_by_member(self._numeric(rows.numeric), self._members))
        if self._category is not None:
            parts.append(_by_member(self._category(rows.categories), self._members))
        inputs, start = np.empty((self._members, len(rows), self._wide.inputs), dtype=np.float32), 0
        for part in parts:
            end = start + part.shape[-1]
            inputs[:, :, start:end] = part
            start = end
        return inputs


class _Linear:
    """(members, rows, inputs) → (members, rows, outputs): each member its own matrix, of the first `outputs` columns."""

    def __init__(self, layer: FusedLinear, outputs: int | None = None) -> None:
        self._weight = np.ascontiguousarray(_array(layer.weight)[..., :outputs])
        self._bias = _array(layer.bias)[..., :outputs] if layer.bias is not None else None
        self.inputs: int = self._weight.shape[1]

    def __call__(self, inputs: Array) -> Array:
        found: Array = np.matmul(inputs, self._weight)
        if self._bias is not None:
            found += self._bias
        return found


class _Bins:
    """(rows, features) → (rows, features, members * width)."""

    def __init__(self, bins: FusedBins) -> None:
        weight, bias = _array(bins.weight), _array(bins.bias)
        features, count, width = weight.shape
        self._scale, self._offset = _array(bins.scale), _array(bins.offset)
        self._inner_edges = -self._offset[1:] / self._scale[1:]
        self._first = count * np.arange(features)
        self._weight = weight.reshape(-1, width)
        below = np.cumsum(weight, axis=1) - weight + bias
        self._below = below.astype(np.float32).reshape(-1, width)

    def __call__(self, numeric: Array) -> Array:
        bins = self._inner_edges.searchsorted(numeric, side="right")
        place = numeric * self._scale[bins]
        place += self._offset[bins]
        np.maximum(place, 0.0, out=place)
        np.minimum(place, 1.0, out=place)
        bins += self._first
        embedded: Array = self._weight[bins]
        embedded *= place[..., np.newaxis]
        embedded += self._below[bins]
        return np.maximum(embedded, 0.0, out=embedded)


class _Categories:
    """(rows, categoricals) → (rows, categoricals, members * width)."""

    def __init__(self, categories: FusedCategories) -> None:
        self._starts, self._table = _array(categories.starts), _array(categories.table)

    def __call__(self, places: NDArray[np.int64]) -> Array:
        embedded: Array = self._table[places + self._starts]
        return embedded


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().numpy()
    return array


def _by_member(embedded: Array, members: int) -> Array:
    """(rows, columns, members * width) → (members, rows, columns * width)."""
    rows, columns, width = embedded.shape
    apart = embedded.reshape(rows, columns, members, width // members).transpose(2, 0, 1, 3)
    return apart.reshape(members, rows, columns * (width // members))


def _said(label: Label, told: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `objective.answers_of`."""
    if label.task == "multiclass":
        return softmax(told, axis=-1).mean(axis=0)  # type: ignore[no-any-return]
    if label.task == "regression":
        return told[..., 0].mean(axis=0) * label.scale + label.mean  # type: ignore[no-any-return]
    return expit(told[..., 0]).mean(axis=0)  # type: ignore[no-any-return]
