"""The gate: may this candidate replace the champion?

Pure decisions over two `Evaluation`s: no clock, no network, no Prefect. Called by `tasks/gate.py`; thresholds come from
`[gate]` in the model's file. Every check says its figure and its rule, also when it holds. Candidate and champion are
compared as `paired.py` says, with days as the unit; how often that errs is measured by `bench/gate.py`.
To add a rule, write a function returning a `Check` and call it in `decide`.
"""

import math
from collections.abc import Iterator

from evergreen.errors import DataError
from evergreen.paired import PairedDifference, holm, paired_auc, paired_difference
from evergreen.spec import GateConfig
from evergreen.types import Baselines, Check, Evaluation, GateDecision, Scores

COIN = 0.69
"""Log loss asked for of two classes where the file says nothing; a coin has 0.693."""


def decide(
    candidate: Evaluation, champion: Evaluation | None, rules: GateConfig, baselines: Baselines | None = None
) -> GateDecision:
    """Judge the candidate; with no champion only the absolute rules and the baselines apply.

    All must have been scored on the same held-out rows, else `DataError`.
    """
    checks = [
        enough_rows(candidate, rules),
        enough_days(candidate, rules),
        *predicts(candidate, rules),
        calibrated(candidate, rules),
        scores_spread(candidate, rules),
    ]
    checks.extend(earns_its_place(candidate, baselines or Baselines(), rules))
    if champion is not None:
        require_same_holdout(candidate, champion)
        checks.append(not_worse_than_champion(candidate, champion, rules))
        if rules.superiority:
            checks.append(better_than_champion(candidate, champion, rules))
        checks.extend(ranks_no_worse(candidate, champion, rules))
        checks.extend(slices_hold(candidate, champion, rules))
    return GateDecision(checks=tuple(checks))


def require_same_holdout(candidate: Evaluation, champion: Evaluation, other: str = "champion") -> None:
    """Figures of different rows say nothing about each other: raise `DataError`."""
    same = candidate.holdout_digest == champion.holdout_digest and candidate.holdout == champion.holdout
    if not same or candidate.overall.rows != champion.overall.rows:
        raise DataError(
            f"the candidate was scored on {_rows_of(candidate)}, the {other} on {_rows_of(champion)}: a gate compares "
            f"two models on the same rows. Score the {other} again on the candidate's holdout."
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
    """A model that says nearly the same of every row has broken on the way, whatever its loss. Scores that are no
    probabilities never come here: `evaluate` raises."""
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


def earns_its_place(candidate: Evaluation, baselines: Baselines, rules: GateConfig) -> Iterator[Check]:
    """Non-inferior to the best plain model of the same rows; shown also where `[gate].baseline_margin` asks nothing."""
    found, allowed = baselines.evaluations, rules.baseline_margin
    if not found:
        if allowed is not None:
            yield Check(
                name="baseline",
                passed=False,
                figure=0.0,
                rule=f"[gate].baseline_margin = {allowed:g}",
                reason="no baseline was trained, so nothing shows that the candidate earns its place",
            )
        return
    best = min(found, key=lambda name: found[name].overall.loss)
    require_same_holdout(candidate, found[best], best)
    mine, theirs = candidate.overall, found[best].overall
    change = paired_difference(mine, theirs)
    asked = f"= {allowed:g} with confidence = {rules.confidence:g}" if allowed is not None else "unset: decides nothing"
    limit = math.inf if allowed is None else theirs.allowance(allowed)
    yield Check(
        name="baseline",
        passed=change.upper(rules.confidence) <= limit,
        figure=_bound(change, rules),
        rule=f"[gate].baseline_margin {asked}",
        reason=f"{_beside(mine, theirs, best)}: {_change(theirs, change, rules)}"
        + (f", may be {theirs.told(limit, '.4f')} above" if allowed is not None else ""),
    )


def not_worse_than_champion(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Check:
    """Non-inferior on the same rows: a fresher model need not prove that it is better, only that it is not worse."""
    mine, theirs = candidate.overall, champion.overall
    found, allowed = paired_difference(mine, theirs), theirs.allowance(rules.margin)
    return Check(
        name="not_worse_than_champion",
        passed=found.upper(rules.confidence) <= allowed,
        figure=_bound(found, rules),
        rule=f"[gate].margin = {rules.margin:g} with confidence = {rules.confidence:g}",
        reason=f"{_beside(mine, theirs)}: {_change(theirs, found, rules)}, may rise {theirs.told(allowed, '.4f')}",
    )


def better_than_champion(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Check:
    """Superior on the same rows; asked for by `[gate].superiority`."""
    found = paired_difference(candidate.overall, champion.overall)
    return Check(
        name="better_than_champion",
        passed=found.upper(rules.confidence) < 0.0,
        figure=_bound(found, rules),
        rule=f"[gate].superiority = true with confidence = {rules.confidence:g}",
        reason=f"{_beside(candidate.overall, champion.overall)}: {_change(champion.overall, found, rules)}, must fall",
    )


def ranks_no_worse(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """Non-inferior in AUC on the same rows; shown also where `[gate].max_auc_drop` asks nothing, if both have an AUC."""
    found, allowed = paired_auc(candidate.overall, champion.overall), rules.max_auc_drop
    if found is None:
        return
    lower = found.lower(rules.confidence)
    rule = f"= {allowed:g} with confidence = {rules.confidence:g}" if allowed is not None else "unset: decides nothing"
    bound = f"with {rules.confidence:.0%} confidence at least {lower:+.4f}" if found.days > 1 else "on one day no bound"
    yield Check(
        name="auc_beside_champion",
        passed=allowed is None or lower >= -allowed,
        figure=lower if math.isfinite(lower) else found.mean,
        rule=f"[gate].max_auc_drop {rule}",
        reason=f"AUC {candidate.overall['auc']:.3f}, champion {champion.overall['auc']:.3f}: change {found.mean:+.4f}, {bound}"
        + (f", may fall {allowed:.4f}" if allowed is not None else ""),
    )


def slices_hold(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """A check a slice of enough rows; a better average does not excuse a worse slice.

    A slice is refused when it rose by more than is allowed and the rise is proved. Small slices scatter, and of many some
    always look worse, so the proofs are corrected for their number: of equal models at most 1 - `confidence` lose a slice.
    """
    judged: dict[str, tuple[Scores, Scores]] = {}
    for name, theirs in sorted(champion.slices.items()):
        mine = candidate.slices.get(name)
        if mine is None or mine.rows != theirs.rows:
            raise DataError(
                f"slice {name} has {theirs.rows:,} rows for the champion and {mine.rows if mine else 0:,} for the "
                "candidate: score both on the same rows with the same [data].slices"
            )
        if mine.rows >= rules.min_slice_rows:
            judged[name] = mine, theirs
    rises = {name: paired_difference(mine, theirs) for name, (mine, theirs) in judged.items()}
    corrected = holm([rise.p_not_worse() for rise in rises.values()])
    for (name, (mine, theirs)), p in zip(judged.items(), corrected, strict=True):
        yield _slice_holds(name, mine, theirs, rises[name].mean, p, rules)


def _slice_holds(name: str, mine: Scores, theirs: Scores, rise: float, p: float, rules: GateConfig) -> Check:
    proved, allowed = p <= 1 - rules.confidence, theirs.allowance(rules.max_slice_loss)
    return Check(
        name=f"slice {name}",
        passed=rise <= allowed or not proved,
        figure=rise,
        rule=f"[gate].max_slice_loss = {rules.max_slice_loss:g} with confidence = {rules.confidence:g} (Holm), "
        f"min_slice_rows = {rules.min_slice_rows:,}",
        reason=f"slice {name}: {_beside(mine, theirs)}, may rise {theirs.told(allowed)}; "
        f"that it rises is {'' if proved else 'not '}proved ({'p < 0.001' if p < 0.001 else f'p {p:.3f}'})",
    )


def _beside(mine: Scores, theirs: Scores, other: str = "champion") -> str:
    return f"{mine.loss_name} {mine.told(mine.loss)}, {other} {theirs.told(theirs.loss)}"


def _bound(found: PairedDifference, rules: GateConfig) -> float:
    """What the rule looks at; on one day, where there is no bound, the difference."""
    upper = found.upper(rules.confidence)
    return upper if math.isfinite(upper) else found.mean


def _change(theirs: Scores, found: PairedDifference, rules: GateConfig) -> str:
    change = f"change {theirs.told(found.mean, '+.4f')}"
    if found.days < 2:
        return f"{change}, of which one day says no bound"
    return (
        f"{change}, with {rules.confidence:.0%} confidence at most {theirs.told(found.upper(rules.confidence), '+.4f')}"
    )


def _rows_of(evaluation: Evaluation) -> str:
    return f"{evaluation.overall.rows:,} rows of {evaluation.holdout} ({evaluation.holdout_digest[:19]}…)"
