"""The gate: may this candidate replace the champion?

Pure decisions over two `Evaluation`s: no clock, no network, no Prefect. Called by `tasks/gate.py`; thresholds come from
`[gate]` in the model's file. Every check says its figure and its rule, also when it holds.
To add a rule, write a function returning a `Check` and call it in `decide`.
"""

from collections.abc import Iterator

from evergreen.errors import DataError
from evergreen.spec import GateConfig
from evergreen.types import Check, Evaluation, GateDecision, Scores


def decide(candidate: Evaluation, champion: Evaluation | None, rules: GateConfig) -> GateDecision:
    """Judge the candidate; with no champion only the absolute rules apply.

    Both must have been scored on the same held-out rows, else `DataError`.
    """
    checks = [
        enough_rows(candidate, rules),
        enough_days(candidate, rules),
        log_loss_below(candidate, rules),
        auc_above(candidate, rules),
        calibrated(candidate, rules),
    ]
    if champion is not None:
        require_same_holdout(candidate, champion)
        checks.append(not_worse_than_champion(candidate, champion, rules))
        checks.extend(slices_hold(candidate, champion, rules))
    return GateDecision(checks=tuple(checks))


def require_same_holdout(candidate: Evaluation, champion: Evaluation) -> None:
    """Figures of different rows say nothing about each other: raise `DataError`."""
    same = candidate.holdout_digest == champion.holdout_digest and candidate.holdout == champion.holdout
    if not same or candidate.overall.rows != champion.overall.rows:
        raise DataError(
            f"the candidate was scored on {_rows_of(candidate)}, the champion on {_rows_of(champion)}: a gate compares "
            "two models on the same rows. Score the champion again on the candidate's holdout."
        )


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


def log_loss_below(candidate: Evaluation, rules: GateConfig) -> Check:
    """Better than a coin, with or without a champion."""
    loss = candidate.overall["log_loss"]
    return Check(
        name="log_loss",
        passed=loss <= rules.max_log_loss,
        figure=loss,
        rule=f"[gate].max_log_loss = {rules.max_log_loss:g}",
        reason=f"log loss {loss:.3f}, at most {rules.max_log_loss:.3f} allowed",
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
    """Its probabilities must mean what they say."""
    error = candidate.overall["calibration_error"]
    return Check(
        name="calibration",
        passed=error <= rules.max_calibration_error,
        figure=error,
        rule=f"[gate].max_calibration_error = {rules.max_calibration_error:g}",
        reason=f"calibration error {error:.3f}, at most {rules.max_calibration_error:.3f} allowed",
    )


def not_worse_than_champion(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Check:
    """Non-inferior on the same rows: a fresher model need not prove that it is better, only that it is not worse."""
    mine, theirs = candidate.overall["log_loss"], champion.overall["log_loss"]
    return Check(
        name="not_worse_than_champion",
        passed=mine - theirs <= rules.margin,
        figure=mine - theirs,
        rule=f"[gate].margin = {rules.margin:g}",
        reason=f"log loss {mine:.3f}, champion {theirs:.3f}, may rise {rules.margin:.3f}",
    )


def slices_hold(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """A check a slice of enough rows; a better average does not excuse a worse slice."""
    for name, theirs in sorted(champion.slices.items()):
        mine = candidate.slices.get(name)
        if mine is None or mine.rows != theirs.rows:
            raise DataError(
                f"slice {name} has {theirs.rows:,} rows for the champion and {mine.rows if mine else 0:,} for the "
                "candidate: score both on the same rows with the same [data].slices"
            )
        if mine.rows >= rules.min_slice_rows:
            yield _slice_holds(name, mine, theirs, rules)


def _slice_holds(name: str, mine: Scores, theirs: Scores, rules: GateConfig) -> Check:
    rise = mine["log_loss"] - theirs["log_loss"]
    return Check(
        name=f"slice {name}",
        passed=rise <= rules.max_slice_loss,
        figure=rise,
        rule=f"[gate].max_slice_loss = {rules.max_slice_loss:g} with min_slice_rows = {rules.min_slice_rows:,}",
        reason=f"slice {name}: log loss {mine['log_loss']:.3f}, champion {theirs['log_loss']:.3f}, "
        f"may rise {rules.max_slice_loss:.3f}",
    )


def _rows_of(evaluation: Evaluation) -> str:
    return f"{evaluation.overall.rows:,} rows of {evaluation.holdout} ({evaluation.holdout_digest[:19]}…)"
