"""Scores and labels → `Evaluation`: how good is this model on these rows, whole and slice by slice?

Pure numpy: no model, no clock, no files. Called for candidate and champion on the same holdout, and by monitoring on
what was served. What is said of the rows of each task is `figures.py`; the gate reads figures by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evergreen.errors import DataError
from evergreen.figures import BINS, Floats, calibration_error, checked, figures_of, pulls_of, reliability, row_losses
from evergreen.types import DayLoss, Digest, Evaluation, Scores, Task, Window

CONFIDENCE = 0.95
"""Of `calibration_error_low`, one-sided."""
RESAMPLES = 2_000
MISSING = "(missing)"
"""Slice of the rows that have no value."""


def evaluate(
    *,
    model: str,
    artifact: Digest,
    holdout: Window,
    holdout_digest: Digest,
    labels: NDArray[Any],
    scores: NDArray[Any],
    days: NDArray[Any],
    slices: Mapping[str, NDArray[Any]],
    task: Task = "binary",
) -> Evaluation:
    """Figures of one model on one holdout, with the losses of each day, whole and by slice.

    `labels` (rows,) and `scores` (rows,), of a multiclass model (rows, classes), are as `figures.py` says for the task; `days`
    (rows,) is the day of each row (dates, or moments in UTC as `datetime64`), `slices` has for each column its (rows,)
    values; every distinct value becomes a slice `column=value`. Raises `DataError` as `score_rows` does.
    """
    labels, scores = checked(task, labels, scores)
    if len(days) != len(labels):
        raise DataError(f"{len(days):,} days for {len(labels):,} rows; give one a row.")
    calendar, place = np.unique(np.asarray(days).astype("datetime64[D]"), return_inverse=True)
    losses = row_losses(task, labels, scores)

    def figures(rows: NDArray[np.bool_]) -> Scores:
        found = _scores(task, labels[rows], scores[rows])
        return found.model_copy(update={"by_day": _by_day(calendar, place[rows], losses[rows])})

    whole = figures(np.ones(len(labels), dtype=np.bool_))
    bins, gaps = reliability(task, labels, scores)
    low = calibration_error_low(bins, gaps, place, seed=int(holdout_digest.removeprefix("sha256:")[:16], 16))
    parts: dict[str, Scores] = {}
    for column, values in slices.items():
        if len(values) != len(labels):
            raise DataError(
                f"slice column {column!r} has {len(values):,} values for {len(labels):,} rows; give one a row."
            )
        names = np.array([value_name(value) for value in values], dtype=object)
        for name in sorted(set(names)):
            parts[f"{column}={name}"] = figures(names == name)
    return Evaluation(
        model=model,
        artifact=artifact,
        holdout=holdout,
        holdout_digest=holdout_digest,
        days=len(calendar),
        overall=Scores(
            rows=whole.rows,
            task=task,
            figures=whole.figures | {"calibration_error_low": low},
            by_day=_with_pulls(whole.by_day, place, pulls_of(task, labels, scores)),
        ),
        slices=parts,
    )


def sound(task: Task, scores: ArrayLike) -> tuple[Floats, int]:
    """The scores with every unsound row told as a blind guess, and how many those were.

    Unsound is what is no finite number, or of a classification no probability; a blind guess is the mean of the sound numbers,
    or the same probability for each class. So a model that broke is judged and refused, and its figures stay finite.
    """
    guess = np.array(scores, dtype=np.float64)
    wrong: NDArray[np.bool_] = ~np.isfinite(guess) if task == "regression" else ~((guess >= 0.0) & (guess <= 1.0))
    if task == "multiclass" and guess.ndim > 1:
        wrong = np.asarray(wrong.any(axis=1))
    if wrong.any():
        mean = float(guess[~wrong].mean()) if task == "regression" and not wrong.all() else 0.0
        blind = {"binary": 0.5, "multiclass": 1.0 / guess.shape[-1], "regression": mean}
        guess[wrong] = blind[task]
    return guess, int(wrong.sum())


def score_rows(labels: ArrayLike, scores: ArrayLike, task: Task = "binary") -> Scores:
    """The figures of `Scores`, without days; labels and scores are as `figures.py` says for the task.

    Raises `DataError` when there are no rows, lengths differ, or a label or a score is not one of the task's.
    """
    return _scores(task, *checked(task, labels, scores))


def calibration_gap(scores: Scores) -> tuple[float, str]:
    """How far scores are above what came true on the whole, and of what, in words.

    Binary: mean score less the share that came true. Multiclass: that of the class it is furthest from 0 for. Regression:
    mean score less mean label, in standard deviations of the label.
    """
    if scores.task == "regression":
        return scores["bias"] / (scores["label_std"] or 1.0), "scores"
    if scores.task == "binary":
        return scores["mean_score"] - scores["base_rate"], "scores"
    gaps = [scores[f"mean_score_{k}"] - scores[f"base_rate_{k}"] for k in range(int(scores["classes"]))]
    furthest = int(np.argmax(np.abs(gaps)))
    return gaps[furthest], f"scores of class {furthest}"


def calibration_error_low(bins: NDArray[np.int64], gaps: Floats, days: NDArray[np.int64], seed: int) -> float:
    """What the calibration error is at least, with `CONFIDENCE`, if other days like these had come.

    `bins` and `gaps` (rows,) are `reliability`'s. A bootstrap of whole days, `days` (rows,) being numbered from 0: rows of one
    day are wrong together. Noise can only raise the error, so the interval is the basic one, which takes that rise off
    (Davison & Hinkley 1997, section 5.2). The error itself on one day.
    """
    found = calibration_error(bins, gaps)
    count = int(days.max()) + 1
    if count < 2:
        return found
    sums = np.bincount(days * BINS + bins, weights=gaps, minlength=count * BINS).reshape(count, BINS)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    errors = np.abs(drawn @ sums).sum(axis=1) / (drawn @ np.bincount(days, minlength=count))
    return float(np.clip(2 * found - np.quantile(errors, CONFIDENCE), 0.0, found))


def _scores(task: Task, labels: Floats, scores: Floats) -> Scores:
    return Scores(task=task, rows=len(labels), figures=figures_of(task, labels, scores))


def _with_pulls(by_day: tuple[DayLoss, ...], place: NDArray[np.int64], pulls: Floats | None) -> tuple[DayLoss, ...]:
    if pulls is None:
        return by_day
    sums = np.bincount(place, weights=pulls).tolist()
    return tuple(day.model_copy(update={"auc_pull": pull}) for day, pull in zip(by_day, sums, strict=True))


def _by_day(
    calendar: NDArray[np.datetime64], place: NDArray[np.int64], losses: NDArray[np.float64]
) -> tuple[DayLoss, ...]:
    rows = np.bincount(place, minlength=len(calendar))
    sums = np.bincount(place, weights=losses, minlength=len(calendar))
    return tuple(
        DayLoss(day=day, rows=int(count), loss_sum=float(total))
        for day, count, total in zip(calendar.tolist(), rows, sums, strict=True)
        if count
    )


def value_name(value: object) -> str:
    """What a slice or a group is called that has this value."""
    return MISSING if value is None or value != value else str(value)
