"""What a backtest found, as a fact and as a table; its page is `page.py`."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evergreen.monitoring.backtest.broken import FaultFigures
from evergreen.monitoring.backtest.figures import FalseAlarms, Result, lower_share, upper_share
from evergreen.spec import ModelSpec
from evergreen.types import Digest, Fact, Fault, Utc, Window


class PolicyFigures(Fact):
    """One policy's year."""

    name: str
    log_loss: float
    auc: float
    retrains: int
    fine_tunes: int
    """Cheaper remedies are no retrains; their time is in `training_seconds`."""
    recalibrations: int
    retrained_at: tuple[Utc, ...]
    alarms: int
    gain_share: float
    """Of the gain of weekly retraining over never."""
    regret: float
    """Log loss above weekly retraining's."""
    training_seconds: float
    weekly_log_loss: tuple[float, ...]
    """0 in a week in which nobody asked."""
    false_alarms: int | None = None
    """On shuffled copies, where every alarm is false; None where it was not asked."""
    null_weeks: int | None = None
    false_alarms_by_rule: dict[str, int] = {}
    """Of those weeks, in how many each rule alarmed; of a rule that is not named, in none."""
    false_alarms_in_budget: float | None = None
    """False alarms to expect in as many windows as the budget allows one in."""
    false_alarms_in_budget_lower: float | None = None
    """The bounds of that, each one-sided, 95% (Clopper & Pearson); windows taken as independent."""
    false_alarms_in_budget_upper: float | None = None


class BacktestReport(Fact):
    """Policies over one model's past."""

    model: str
    spec_digest: Digest
    played: Window
    weeks: int
    fitted_on: Window
    """What thresholds were fitted on; nothing that is reported lies in it."""
    recommended: dict[str, int | float | str | None]
    """The fitted `[monitor]` and `[remedy]` keys."""
    trained_with: dict[str, Any]
    policies: tuple[PolicyFigures, ...]
    random_retrains: int
    random_median: float
    """Share of weekly's gain of random policies with as many retrains as the fitted one, and nothing else."""
    random_95th: float
    random_routine_median: float
    """The same with the fitted routine at every check between them."""
    random_routine_95th: float
    budget_weeks: int
    max_retrain_share: float
    faults: tuple[FaultFigures, ...] = ()
    """Put into windows on purpose."""
    unbroken_looks: int = 0
    """Looks of the fitted policy's own play, in which nothing was put in,"""
    false_faults: tuple[str, ...] = ()
    """and what was called broken in them."""

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        fitted: ModelSpec,
        found: Sequence[Result],
        random: Mapping[str, NDArray[np.float64]],
        null: Mapping[str, FalseAlarms],
        *,
        slots: Sequence[datetime],
        fitted_on: tuple[datetime, datetime],
        faults: tuple[FaultFigures, ...] = (),
        unbroken: Mapping[int, tuple[Fault, ...]] = MappingProxyType({}),
    ) -> Self:
        """Put figures together; `null` has false alarms by policy, `random` gains of random policies by what is
        done between retrains."""
        budget = spec.backtest.weeks_per_false_alarm
        keys = (
            "min_probe_gain",
            "challenger",
            "min_challenger_gain",
            "probe_confidence",
            "max_age_days",
            "max_calibration_gap",
        )
        cures = ("routine", "tune_rate_share", "tune_days", "tune_epochs")
        trained = ("epochs", "hidden", "batch_size", "members", "learning_rate")
        return cls(
            model=spec.name,
            spec_digest=spec.digest,
            played=Window(start=slots[0], end=slots[-1]),
            weeks=len(slots) - 1,
            fitted_on=Window(start=fitted_on[0], end=fitted_on[1]),
            recommended={key: getattr(fitted.monitor, key) for key in keys}
            | {key: getattr(fitted.remedy, key) for key in cures},
            trained_with=spec.train.model_dump(mode="json", include=set(trained)),
            policies=tuple(_figures(one, null.get(one.name), slots, budget) for one in found),
            random_retrains=len(next(one for one in found if one.name == "fitted").retrains),
            random_median=float(np.median(random["alone"])),
            random_95th=float(np.quantile(random["alone"], 0.95)),
            random_routine_median=float(np.median(random["between"])),
            random_routine_95th=float(np.quantile(random["between"], 0.95)),
            budget_weeks=budget,
            max_retrain_share=spec.backtest.max_retrain_share,
            faults=faults,
            unbroken_looks=len(unbroken),
            false_faults=tuple(fault.reason for slot in sorted(unbroken) for fault in unbroken[slot]),
        )


def _figures(one: Result, null: FalseAlarms | None, slots: Sequence[datetime], budget: int) -> PolicyFigures:
    figures = PolicyFigures(
        name=one.name,
        log_loss=one.log_loss,
        auc=one.auc,
        retrains=len(one.retrains),
        fine_tunes=one.fine_tunes,
        recalibrations=one.recalibrations,
        retrained_at=tuple(slots[slot] for slot in one.retrains),
        alarms=len(one.alarms),
        gain_share=one.gain_share,
        regret=one.regret,
        training_seconds=one.seconds,
        weekly_log_loss=one.curve,
    )
    if null is None:
        return figures
    alarms, weeks = null.alarms, null.weeks
    update = {
        "false_alarms": alarms,
        "null_weeks": weeks,
        "false_alarms_by_rule": dict(null.by_rule),
        "false_alarms_in_budget": budget * alarms / weeks,
        "false_alarms_in_budget_lower": budget * lower_share(alarms, weeks),
        "false_alarms_in_budget_upper": budget * upper_share(alarms, weeks),
    }
    return figures.model_copy(update=update)


def table(report: BacktestReport) -> str:
    """A row a policy, in markdown."""
    lines = [
        f"| policy | log loss | AUC | share of weekly's gain | retrains of {report.weeks - 1} | fine-tunes | "
        f"recalibrations | training CPU s | alarms | false alarms in {report.budget_weeks} windows (90% interval) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in report.policies:
        rate, low, high = (
            one.false_alarms_in_budget,
            one.false_alarms_in_budget_lower,
            one.false_alarms_in_budget_upper,
        )
        false = "" if rate is None else f"{rate:.2f} ({low:.2f} to {high:.2f})"
        lines.append(
            f"| {one.name} | {one.log_loss:.4f} | {one.auc:.4f} | {one.gain_share:.1%} | {one.retrains} | "
            f"{one.fine_tunes} | {one.recalibrations} | {one.training_seconds:.0f} | {one.alarms} | {false} |"
        )
    lines += ["", *(sentence for sentence in _words(report))]
    return "\n".join(lines)


def by_rule(report: BacktestReport) -> Iterator[str]:
    """Which rule alarmed how often where nothing drifts, a sentence a policy."""
    for one in report.policies:
        if one.null_weeks is not None:
            rules = "; ".join(f"{rule} in {weeks}" for rule, weeks in one.false_alarms_by_rule.items()) or "none"
            yield f"Rules that alarmed in the {one.null_weeks} shuffled weeks, {one.name}: {rules}."


def _words(report: BacktestReport) -> Iterator[str]:
    yield (
        f"Fitted was on {report.fitted_on}, which no figure uses; played was {report.played}. Each model: {report.trained_with}."
    )
    yield (
        f"Random policies with {report.random_retrains} retrains and nothing else reach {report.random_median:.1%} of weekly's "
        f"gain, one in twenty {report.random_95th:.1%}; with the fitted routine between, {report.random_routine_median:.1%} "
        f"and {report.random_routine_95th:.1%}. Fine-tunes and recalibrations are no retrains; their CPU time is in the table."
    )
    yield from by_rule(report)
    for fault in report.faults:
        yield (
            f"Broken on purpose, {fault.name}: named in {fault.caught} of {fault.windows} windows at the first look, "
            f"{fault.remedies} remedies started on them."
        )
    if report.unbroken_looks:
        named = "; ".join(report.false_faults) or "nothing"
        yield f"In {report.unbroken_looks} looks at the data as it came, called broken: {named}."
    yield f"Recommended: {report.recommended}."
