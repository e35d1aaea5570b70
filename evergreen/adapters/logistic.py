"""Logistic regression, or a ridge regression of a number, over what the network would read: scikit-learn.

The only module that imports scikit-learn. Linear in the candidate's own normalised numerics, missing indicators and
categories, so a network that is no better has learnt nothing beyond sums. Called by `evergreen/training/baselines.py`.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.training.data import preprocessing
from evergreen.training.data.preprocessing import Coded, Encoder, category_key

NAME = "logistic regression"
NOTE = "scikit-learn"
PENALTY = 1e-4
"""L2, a row: next to nothing, but columns that say the same (two readings of one weather report) do not pull apart."""
_STEPS = 50


@dataclass(frozen=True)
class Linear:
    """A fitted model."""

    model: Any
    encoder: Encoder

    @property
    def content(self) -> bytes:
        """What it learnt, as bytes."""
        return bytes(self.model.coef_.tobytes() + np.asarray(self.model.intercept_).tobytes())

    def scores(self, rows: pd.DataFrame) -> NDArray[np.float64]:
        """(rows,) probabilities that the label is 1, or numbers; of several classes (rows, classes)."""
        inputs = _inputs(self.encoder, rows)
        if not hasattr(self.model, "predict_proba"):
            return np.asarray(self.model.predict(inputs), dtype=np.float64)
        chances = np.asarray(self.model.predict_proba(inputs), dtype=np.float64)
        return chances[:, 1] if chances.shape[1] == 2 else chances


def fit(
    task: Literal["binary", "multiclass", "regression"],
    rows: pd.DataFrame,
    labels: NDArray[Any],
    features: dict[str, Literal["numeric", "categorical"]],
) -> Linear:
    """Learn `labels` (rows,) from the columns `features` of `rows`.

    Raises `DataError` when no column says anything.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    numerics = {n: rows[n].to_numpy(np.float32, na_value=np.nan) for n, kind in features.items() if kind == "numeric"}
    categoricals = {n: _coded(rows[n]) for n, kind in features.items() if kind == "categorical"}
    encoder = Encoder(preprocessing.fit(numerics, categoricals, features))
    # Many rows and few columns: a Newton step costs one product of the inputs with themselves, and a handful suffice.
    penalty = PENALTY * len(labels)
    model = (
        Ridge(alpha=penalty, solver="cholesky")
        if task == "regression"
        else LogisticRegression(C=1 / penalty, solver="newton-cholesky", max_iter=_STEPS)
    )
    model.fit(_inputs(encoder, rows), labels)
    return Linear(model, encoder)


def _inputs(encoder: Encoder, rows: pd.DataFrame) -> NDArray[np.float32]:
    """(rows, columns): normalised numerics, indicators, and a column a category; unseen ones have none of their own."""
    encoded = encoder.encode_cells({str(name): rows[name] for name in rows.columns})
    hot = [
        (places[:, None] == np.arange(1, size)).astype(np.float32)
        for places, size in zip(encoded.categories.T, encoder.cardinalities, strict=True)
    ]
    return np.concatenate([encoded.numeric, encoded.missing, *hot], axis=1)


def _coded(column: "pd.Series[Any]") -> Coded:
    codes, values = pd.factorize(column)
    return Coded(codes.astype(np.int32), tuple(category_key(value) for value in values))
