"""Scores and labels → `Evaluation`: how good is this model on these rows, whole and slice by slice?

Pure numpy: no model, no clock, no files. Called for candidate and champion on the same holdout, and by monitoring on
what was served. To add a figure, compute it in `score_rows`; the gate reads figures by name.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evergreen.errors import DataError
from evergreen.types import DayLoss, Digest, Evaluation, Scores, Window

BINS = 10
"""Of the expected calibration error."""
_CERTAIN = 1e-7
"""Scores are kept this far from 0 and 1 in the log loss: one confident miss costs 16, not infinity."""
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
) -> Evaluation:
    """Figures of one model on one holdout, with the losses of each day, whole and by slice.

    `labels` (rows,) of 0 and 1, `scores` (rows,) probabilities, `days` (rows,) the day of each row (dates, or moments in UTC
    as `datetime64`), `slices` for each column its (rows,) values; every distinct value becomes a slice `column=value`.
    Raises `DataError` as `score_rows` does.
    """
    labels, scores = _checked(labels, scores)
    if len(days) != len(labels):
        raise DataError(f"{len(days):,} days for {len(labels):,} rows; give one a row.")
    calendar, place = np.unique(np.asarray(days).astype("datetime64[D]"), return_inverse=True)
    losses = row_losses(labels, scores)

    def figures(rows: NDArray[np.bool_]) -> Scores:
        found = _figures(labels[rows], scores[rows])
        return found.model_copy(update={"by_day": _by_day(calendar, place[rows], losses[rows])})

    whole = figures(np.ones(len(labels), dtype=np.bool_))
    low = calibration_error_low(labels, scores, place, seed=int(holdout_digest.removeprefix("sha256:")[:16], 16))
    parts: dict[str, Scores] = {}
    for column, values in slices.items():
        if len(values) != len(labels):
            raise DataError(
                f"slice column {column!r} has {len(values):,} values for {len(labels):,} rows; give one a row."
            )
        names = np.array([_name(value) for value in values], dtype=object)
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
            figures=whole.figures | {"calibration_error_low": low},
            by_day=_with_pulls(whole.by_day, place, labels, scores),
        ),
        slices=parts,
    )


def score_rows(labels: ArrayLike, scores: ArrayLike) -> Scores:
    """The figures of `Scores`, without days.

    `labels` (rows,) of 0 and 1, `scores` (rows,) probabilities. Raises `DataError` when there are no rows, lengths differ,
    a label is neither 0 nor 1, or a score is not a probability.
    """
    return _figures(*_checked(labels, scores))


def roc_auc(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Chance that a row of class 1 scores above one of class 0, ties counting half (Mann-Whitney U; both must be present)."""
    positives = labels == 1
    ones, zeros = int(positives.sum()), int((~positives).sum())
    return float((_middle_ranks(scores)[positives].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def auc_pulls(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
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


def calibration_error(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Expected calibration error over `BINS` equal-width bins (Naeini et al. 2015): mean |score - share| by rows of a bin."""
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=scores - labels, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def calibration_error_low(
    labels: NDArray[np.float64], scores: NDArray[np.float64], days: NDArray[np.int64], seed: int
) -> float:
    """What the calibration error is at least, with `CONFIDENCE`, if other days like these had come.

    A bootstrap of whole days, `days` (rows,) being numbered from 0: rows of one day are wrong together. Noise can only
    raise the error, so the interval is the basic one, which takes that rise off (Davison & Hinkley 1997, section 5.2).
    The error itself on one day.
    """
    found = calibration_error(labels, scores)
    count = int(days.max()) + 1
    if count < 2:
        return found
    bins = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(days * BINS + bins, weights=scores - labels, minlength=count * BINS).reshape(count, BINS)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    errors = np.abs(drawn @ gaps).sum(axis=1) / (drawn @ np.bincount(days, minlength=count))
    return float(np.clip(2 * found - np.quantile(errors, CONFIDENCE), 0.0, found))


def row_losses(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) log loss of each row."""
    certain = np.clip(scores, _CERTAIN, 1 - _CERTAIN)
    losses: NDArray[np.float64] = -np.where(labels == 1, np.log(certain), np.log1p(-certain))
    return losses


def _middle_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows,) rank from 1, ties sharing the middle of theirs."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def _with_pulls(
    by_day: tuple[DayLoss, ...], place: NDArray[np.int64], labels: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[DayLoss, ...]:
    if labels.min() == labels.max():
        return by_day
    pulls = np.bincount(place, weights=auc_pulls(labels, scores)).tolist()
    return tuple(day.model_copy(update={"auc_pull": pull}) for day, pull in zip(by_day, pulls, strict=True))


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


def _figures(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> Scores:
    figures = {
        "log_loss": float(row_losses(labels, scores).mean()),
        "brier": float(np.mean((scores - labels) ** 2)),
        "calibration_error": calibration_error(labels, scores),
        "base_rate": float(labels.mean()),
        "mean_score": float(scores.mean()),
        "score_std": float(scores.std()),
        "min_score": float(scores.min()),
        "max_score": float(scores.max()),
    }
    if labels.min() != labels.max():
        figures["auc"] = roc_auc(labels, scores)
    return Scores(rows=len(labels), figures=figures)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, guess = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(truth) == 0:
        raise DataError("there are no rows to score. Ask for a window that has labelled rows.")
    if truth.shape != guess.shape:
        raise DataError(f"{truth.shape} labels but {guess.shape} scores; give one of each a row.")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise DataError(
            f"labels must be 0 or 1, found {truth[~np.isin(truth, (0.0, 1.0))][0]}. Leave out rows without one."
        )
    # Written so that NaN fails too.
    wrong = ~((guess >= 0.0) & (guess <= 1.0))
    if wrong.any():
        raise DataError(f"scores must be probabilities, found {guess[wrong][0]}. Look at the model that gave it.")
    return truth, guess


def _name(value: object) -> str:
    return MISSING if value is None or value != value else str(value)
