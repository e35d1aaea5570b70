"""What a candidate must be by itself, with or without a champion: enough rows, better than a guess, calibrated, sane.

Pure checks over an `Evaluation`. Called by `decision.py`; thresholds come from `[gate]`.
"""

import math
from collections.abc import Iterator

from evergreen.spec import GateConfig
from evergreen.types import Check, Evaluation

COIN = 0.69
"""Log loss asked for of two classes where the file says nothing; a coin has 0.693."""
NAMED_FEATURES = 3


def enough_rows(candidate: Evaluation, rules: GateConfig) -> Check:
    """Refuse to judge on too little."""
    rows = candidate.overall.rows
    return Check(
        name="enough_rows",
        passed=rows >= rules.min_rows,
        figure=rows,
        rule=f"[gate].min_rows = {rules.min_rows:,}",
        reason=f"{rows:,} holdout rows, at least {rules.min_rows:,} asked for",
    )


def enough_days(candidate: Evaluation, rules: GateConfig) -> Check:
    """Rows of one day are alike: many rows on few days are few."""
    return Check(
        name="enough_days",
        passed=candidate.days >= rules.min_days,
        figure=candidate.days,
        rule=f"[gate].min_days = {rules.min_days}",
        reason=f"{candidate.days} holdout days, at least {rules.min_days} asked for",
    )


def scores_sound(candidate: Evaluation) -> Iterator[Check]:
    """Every row gets an answer that may be given; shown only where some did not."""
    if candidate.unsound_scores:
        yield Check(
            name="scores_sound",
            passed=False,
            figure=candidate.unsound_scores,
            rule="every score is a finite number, of a classification a probability",
            reason=f"{candidate.unsound_scores:,} of {candidate.overall.rows:,} holdout rows got no number or no probability",
        )


def predicts(candidate: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """Better than a blind guess, with or without a champion: what that is depends on the task."""
    if candidate.overall.task == "regression":
        yield explains(candidate, rules)
    else:
        yield log_loss_below(candidate, rules)
        yield auc_above(candidate, rules)


def explains(candidate: Evaluation, rules: GateConfig) -> Check:
    """Closer than the mean of these rows; labels that are all equal prove nothing."""
    r2 = candidate.overall.figures.get("r2")
    if r2 is None:
        reason = f"the labels of the {candidate.overall.rows:,} holdout rows are all equal, so they prove nothing"
    else:
        reason = f"R² {r2:.3f}, at least {rules.min_r2:.3f} asked for"
    return Check(
        name="r2",
        passed=r2 is not None and r2 >= rules.min_r2,
        figure=r2 or 0.0,
        rule=f"[gate].min_r2 = {rules.min_r2:g}",
        reason=reason,
    )


def log_loss_below(candidate: Evaluation, rules: GateConfig) -> Check:
    """Better than a coin, or a die of as many sides as there are classes."""
    loss, classes = candidate.overall.loss, candidate.overall.figures.get("classes", 2.0)
    limit = COIN * math.log(classes) / math.log(2.0) if rules.max_log_loss is None else rules.max_log_loss
    return Check(
        name="log_loss",
        passed=loss <= limit,
        figure=loss,
        rule=f"[gate].max_log_loss = {limit:.4g}",
        reason=f"log loss {loss:.3f}, at most {limit:.3f} allowed",
    )


def auc_above(candidate: Evaluation, rules: GateConfig) -> Check:
    """It must rank; on rows of one class nothing can be ranked, so nothing is proved."""
    auc = candidate.overall.figures.get("auc")
    if auc is None:
        reason = f"the {candidate.overall.rows:,} holdout rows are all of one class, so they prove no ranking"
    else:
        reason = f"AUC {auc:.3f}, at least {rules.min_auc:.3f} asked for"
    return Check(
        name="auc",
        passed=auc is not None and auc >= rules.min_auc,
        figure=auc or 0.0,
        rule=f"[gate].min_auc = {rules.min_auc:g}",
        reason=reason,
    )


def calibrated(candidate: Evaluation, rules: GateConfig) -> Check:
    """Its probabilities must mean what they say; a few odd days alone do not refuse it."""
    error, low = candidate.overall["calibration_error"], candidate.overall["calibration_error_low"]
    return Check(
        name="calibration",
        passed=low <= rules.max_calibration_error,
        figure=error,
        rule=f"[gate].max_calibration_error = {rules.max_calibration_error:g}",
        reason=f"calibration error {error:.3f}, proved to be at least {low:.3f}, "
        f"at most {rules.max_calibration_error:.3f} allowed",
    )


def scores_spread(candidate: Evaluation, rules: GateConfig) -> Check:
    """A model that says nearly the same of every row has broken on the way, whatever its loss."""
    std, low, high = (candidate.overall[name] for name in ("score_std", "min_score", "max_score"))
    unit = ""
    if candidate.overall.task == "regression":
        std, unit = std / (candidate.overall["label_std"] or 1.0), " of the label's"
    return Check(
        name="scores_spread",
        passed=low < high and std >= rules.min_score_std,
        figure=std,
        rule=f"[gate].min_score_std = {rules.min_score_std:g}",
        reason=f"scores from {low:.3f} to {high:.3f} with standard deviation {std:.3f}{unit}, "
        f"at least {rules.min_score_std:.3f} asked for",
    )


def leans_on(candidate: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """What the candidate leans on most, where it was measured; one feature that carries nearly all has often seen the label."""
    attribution, allowed = candidate.attribution, rules.max_feature_share
    if attribution is None or not attribution.features:
        return
    shares = sorted(attribution.shares.items(), key=lambda part: -part[1])
    told = ", ".join(f"{name} {share:.0%}" for name, share in shares[:NAMED_FEATURES])
    yield Check(
        name="attribution",
        passed=allowed is None or shares[0][1] <= allowed,
        figure=shares[0][1],
        rule="[gate].max_feature_share " + (f"= {allowed:g}" if allowed is not None else "unset: decides nothing"),
        reason=f"of what all features are worth: {told}"
        + (f"; one may carry at most {allowed:.0%}" if allowed is not None else ""),
    )
