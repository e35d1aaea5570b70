"""Labels and scores → the losses of rows, and the figures of a task.

What they are differs by task. *Binary*: labels (rows,) of 0 and 1, scores (rows,) the probability of 1. *Multiclass*:
labels (rows,) of 0 up, scores (rows, classes) the probability of each. *Regression*: numbers, both (rows,).
All are float64 and went through `checked`. Pure numpy. Called by `evaluation.py`. To add a figure, compute it in the
task's `_figures_of_…` and name it there; to add a task, give it a line in each table at the end.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evergreen.errors import DataError
from evergreen.types import Task

Floats = NDArray[np.float64]
Figures = dict[str, float]

BINS = 10
"""Of the expected calibration error."""
_CERTAIN = 1e-7
"""Probabilities are kept this far from 0 and 1 in the log loss: one confident miss costs 16, not infinity."""
MOST_CLASSES = 1_000
"""A label above is taken for a number that is no class: each class is an output of the network and two figures."""
_SUM_ERROR = 1e-3
"""The probabilities of a row's classes may add up to this far from 1."""


def checked(task: Task, labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats]:
    """Both as the other functions take them; a class the model never saw gets a column of zeros.

    Raises `DataError` when there are no rows, lengths differ, or a label or a score is not one of the task's.
    """
    truth, guess = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(truth) == 0:
        raise DataError("there are no rows to score. Ask for a window that has labelled rows.")
    if guess.ndim != 1 + (task == "multiclass") or truth.shape != guess.shape[:1]:
        raise DataError(f"{truth.shape} labels but {guess.shape} scores; give one of each a row.")
    wrong = odd_labels(task, truth)
    if wrong.any():
        raise DataError(f"labels must be {LABELS[task]}, found {truth[wrong][0]:g}. Leave out rows without one.")
    # Written so that NaN fails too.
    wrong = ~np.isfinite(guess) if task == "regression" else ~((guess >= 0.0) & (guess <= 1.0))
    if task == "multiclass" and not wrong.any():
        wrong = np.abs(guess.sum(axis=1, keepdims=True) - 1.0) > _SUM_ERROR
        guess = np.pad(guess, ((0, 0), (0, max(int(truth.max()) + 1 - guess.shape[1], 0))))
    if wrong.any():
        what = {
            "binary": "probabilities",
            "multiclass": "probabilities that add up to 1",
            "regression": "finite numbers",
        }
        raise DataError(
            f"scores must be {what[task]}, found {guess[wrong.nonzero()[0][0]]}. Look at the model that gave it."
        )
    return truth, guess


def odd_labels(task: Task, labels: Floats) -> NDArray[np.bool_]:
    """(rows,) true where a label is not one of the task's; see `LABELS`."""
    if task == "binary":
        return ~np.isin(labels, (0.0, 1.0))
    right = np.isfinite(labels)
    if task == "multiclass":
        right &= (labels >= 0) & (labels < MOST_CLASSES) & (labels == np.floor(labels))
    return ~right


def row_losses(task: Task, labels: Floats, scores: Floats) -> Floats:
    """(rows,) the loss of each row: log loss, or squared error."""
    return _LOSSES[task](labels, scores)


def figures_of(task: Task, labels: Floats, scores: Floats) -> Figures:
    """Everything that is said of these rows: the loss, `calibration_error`, `score_std`, `min_score`, `max_score`, and

    - binary: `brier`, `base_rate`, `mean_score`, and `auc` where both classes are present;
    - multiclass: `classes`, `accuracy`, `brier` (summed over classes), `base_rate_K` and `mean_score_K` of each class, and
      `auc`, the mean over each class against the others, of the classes that some rows are of and some are not; the
      spread is that of the class whose probability spreads most;
    - regression: `rmse`, `mae`, `bias` (mean score less mean label), `mean_score`, `mean_label`, `label_std`, and `r2`, the
      share of the variance explained, where the labels vary.
    """
    figures = _FIGURES[task](labels, scores) | {
        "calibration_error": calibration_error(*reliability(task, labels, scores))
    }
    rankings = _rankings(task, labels, scores)
    if rankings:
        figures["auc"] = float(np.mean([roc_auc(ones, column) for ones, column in rankings]))
    return figures


def reliability(task: Task, labels: Floats, scores: Floats) -> tuple[NDArray[np.int64], Floats]:
    """(rows,) the calibration bin of each row, and (rows,) how far its score is above what came true.

    Binary: equal-width bins of the probability (Naeini et al. 2015). Multiclass: the same for the most likely class, which
    came true or did not (Guo et al. 2017). Regression: tenths of the rows by score, in standard deviations of the label.
    """
    if task == "regression":
        edges = np.quantile(scores, np.arange(1, BINS) / BINS)
        return np.searchsorted(edges, scores, side="right"), (scores - labels) / (labels.std() or 1.0)
    if task == "multiclass":
        labels, scores = (scores.argmax(axis=1) == labels).astype(np.float64), scores.max(axis=1)
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1), scores - labels


def calibration_error(bins: NDArray[np.int64], gaps: Floats) -> float:
    """Expected calibration error: mean |score - what came true| by rows of a bin; see `reliability`."""
    return float(np.abs(np.bincount(bins, weights=gaps, minlength=BINS)).sum() / len(gaps))


def roc_auc(labels: Floats, scores: Floats) -> float:
    """Chance that a row of class 1 scores above one of class 0, ties counting half (Mann-Whitney U; both must be present)."""
    positives = labels == 1
    ones, zeros = int(positives.sum()), int((~positives).sum())
    return float((_middle_ranks(scores)[positives].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auc_pulls(labels: Floats, scores: Floats) -> Floats:
    """(rows,) how far each row pulls the AUC from what the others make it; they sum to 0 (both classes must be present).

    A row's share of the other class that it stands on the right side of, less the AUC, by the rows of its class: DeLong's
    structural components, by ranks as Sun & Xu 2014 have it. Summed over clusters they give the variance of an AUC, or of
    a difference of two, where rows of a cluster depend on each other (Obuchowski 1997).
    """
    positives = labels == 1
    ones, zeros = int(positives.sum()), int((~positives).sum())
    ranks, auc = _middle_ranks(scores), roc_auc(labels, scores)
    pulls = np.empty(len(labels))
    pulls[positives] = ((ranks[positives] - _middle_ranks(scores[positives])) / zeros - auc) / ones
    pulls[~positives] = (1 - (ranks[~positives] - _middle_ranks(scores[~positives])) / ones - auc) / zeros
    return pulls


def pulls_of(task: Task, labels: Floats, scores: Floats) -> Floats | None:
    """(rows,) how far each row pulls the `auc` among the figures; None where that is left out."""
    pulls = [auc_pulls(ones, column) for ones, column in _rankings(task, labels, scores)]
    return np.mean(pulls, axis=0) if pulls else None


def _rankings(task: Task, labels: Floats, scores: Floats) -> list[tuple[Floats, Floats]]:
    """What an AUC is the mean over: (rows,) of 0 and 1, both present, and (rows,) scores of 1."""
    if task == "binary":
        found = [(labels, scores)]
    elif task == "multiclass":
        found = [((labels == k).astype(np.float64), scores[:, k]) for k in range(scores.shape[1])]
    else:
        found = []
    return [(ones, column) for ones, column in found if ones.min() != ones.max()]


def _middle_ranks(scores: Floats) -> Floats:
    """(rows,) rank from 1, ties sharing the middle of theirs."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _log_losses_of_two(labels: Floats, scores: Floats) -> Floats:
    certain = np.clip(scores, _CERTAIN, 1 - _CERTAIN)
    losses: Floats = -np.where(labels == 1, np.log(certain), np.log1p(-certain))
    return losses


def _log_losses(labels: Floats, scores: Floats) -> Floats:
    told = np.take_along_axis(scores, labels.astype(np.int64)[:, None], axis=1)[:, 0]
    losses: Floats = -np.log(np.clip(told, _CERTAIN, 1 - _CERTAIN))
    return losses


def _squared_errors(labels: Floats, scores: Floats) -> Floats:
    return np.square(scores - labels)


def _figures_of_two(labels: Floats, scores: Floats) -> Figures:
    return {
        "log_loss": float(_log_losses_of_two(labels, scores).mean()),
        "brier": float(np.mean((scores - labels) ** 2)),
        "base_rate": float(labels.mean()),
        "mean_score": float(scores.mean()),
        **_spread(scores),
    }


def _figures_of_many(labels: Floats, scores: Floats) -> Figures:
    classes = scores.shape[1]
    truth = labels[:, None] == np.arange(classes)
    figures = {
        "log_loss": float(_log_losses(labels, scores).mean()),
        "brier": float(np.square(scores - truth).sum(axis=1).mean()),
        "accuracy": float((scores.argmax(axis=1) == labels).mean()),
        "classes": float(classes),
        **_spread(scores[:, int(scores.std(axis=0).argmax())]),
    }
    for k in range(classes):
        figures |= {f"base_rate_{k}": float(truth[:, k].mean()), f"mean_score_{k}": float(scores[:, k].mean())}
    return figures


def _figures_of_numbers(labels: Floats, scores: Floats) -> Figures:
    squared = float(_squared_errors(labels, scores).mean())
    figures = {
        "mse": squared,
        "rmse": squared**0.5,
        "mae": float(np.abs(scores - labels).mean()),
        "bias": float(scores.mean() - labels.mean()),
        "mean_score": float(scores.mean()),
        "mean_label": float(labels.mean()),
        "label_std": float(labels.std()),
        **_spread(scores),
    }
    if labels.min() != labels.max():
        figures["r2"] = 1.0 - squared / float(labels.var())
    return figures


def _spread(scores: Floats) -> Figures:
    return {"score_std": float(scores.std()), "min_score": float(scores.min()), "max_score": float(scores.max())}


LABELS: Mapping[Task, str] = {
    "binary": "0 or 1",
    "multiclass": f"classes from 0 to {MOST_CLASSES - 1}",
    "regression": "finite numbers",
}
"""What a label must be, in words."""
_LOSSES: Mapping[Task, Callable[[Floats, Floats], Floats]] = {
    "binary": _log_losses_of_two,
    "multiclass": _log_losses,
    "regression": _squared_errors,
}
_FIGURES: Mapping[Task, Callable[[Floats, Floats], Figures]] = {
    "binary": _figures_of_two,
    "multiclass": _figures_of_many,
    "regression": _figures_of_numbers,
}
