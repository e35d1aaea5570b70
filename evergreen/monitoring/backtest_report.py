"""What a backtest found, as a fact, as a table and as one page."""

import html
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from evergreen.monitoring.backtest_figures import (
    Result,
    lower_share,
    upper_share,
)
from evergreen.spec import ModelSpec
from evergreen.types import Digest, Fact, Utc, Window

WIDTH, HEIGHT, EDGE = 900, 260, 40
COLOURS = ("#888888", "#1b7f3b", "#8fbf9f", "#d08a2e", "#7a5cc0", "#c23b3b")


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
    false_alarms: int | None = None
    """On shuffled copies, where every alarm is false; None where it was not asked."""
    null_weeks: int | None = None
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
    recommended: dict[str, float | str | None]
    """The fitted `[monitor]` and `[remedy]` keys."""
    trained_with: dict[str, Any]
    policies: tuple[PolicyFigures, ...]
    random_retrains: int
    random_median: float
    """Share of weekly's gain of random policies with as many retrains as the fitted one."""
    random_95th: float
    budget_weeks: int
    max_retrain_share: float

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        fitted: ModelSpec,
        found: Sequence[Result],
        random: NDArray[np.float64],
        null: Mapping[str, tuple[int, int]],
        *,
        slots: Sequence[datetime],
        fitted_on: tuple[datetime, datetime],
    ) -> Self:
        """Put figures together; `null` has false alarms and weeks by policy."""
        budget = spec.backtest.weeks_per_false_alarm
        keys = ("min_probe_gain", "probe_confidence", "max_age_days", "max_calibration_gap")
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
            random_median=float(np.median(random)),
            random_95th=float(np.quantile(random, 0.95)),
            budget_weeks=budget,
            max_retrain_share=spec.backtest.max_retrain_share,
        )


def _figures(one: Result, null: tuple[int, int] | None, slots: Sequence[datetime], budget: int) -> PolicyFigures:
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
    alarms, weeks = null
    update = {
        "false_alarms": alarms,
        "null_weeks": weeks,
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
    lines.append(
        f"\nRandom policies with {report.random_retrains} retrains and nothing else reach {report.random_median:.1%} of "
        f"weekly's gain, one in twenty {report.random_95th:.1%}. Fine-tunes and recalibrations are no retrains; their CPU time "
        f"is in the table. Fitted was on {report.fitted_on}, which no figure above uses; played was {report.played}. "
        f"Each model: {report.trained_with}. Recommended: {report.recommended}."
    )
    return "\n".join(lines)


def page(report: BacktestReport) -> str:
    """One file of HTML: the curves, then the table."""
    rows = [line.strip("|").split("|") for line in table(report).splitlines() if line.startswith("|")]
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell.strip())}</td>" for cell in row) + "</tr>"
        for row in (rows[0], *rows[2:])
    )
    words = html.escape(table(report).rsplit("\n", 1)[-1])
    return (
        f"<!doctype html><meta charset=utf-8><title>{report.model}: policies on history</title>"
        "<style>body{font:15px system-ui;margin:2em;max-width:70em}td{padding:.2em .8em;border-bottom:1px solid #ddd}</style>"
        f"<h1>{report.model}: policies on history</h1><p>Log loss of each window, less that of weekly retraining.</p>"
        f"{_curves(report)}<table>{body}</table><p>{words}</p>\n"
    )


def _curves(report: BacktestReport) -> str:
    """Log loss of each policy above weekly retraining's, a line each, as SVG."""
    base = np.array(next(one for one in report.policies if one.name == "weekly").weekly_log_loss)
    lines = {one.name: np.array(one.weekly_log_loss) - base for one in report.policies if one.name != "weekly"}
    low = min(float(line.min()) for line in lines.values())
    high = max(float(line.max()) for line in lines.values())
    x = EDGE + np.arange(report.weeks) * (WIDTH - 2 * EDGE) / max(report.weeks - 1, 1)

    def height(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return HEIGHT - EDGE - (values - low) / max(high - low, 1e-9) * (HEIGHT - 2 * EDGE)

    drawn: list[str] = []
    for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, height(line), strict=True))
        place = EDGE + 18 * len(drawn)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(f'<text x="{WIDTH + 10}" y="{place}" fill="{colour}">{html.escape(name)}</text>')
    zero = float(height(np.zeros(1))[0])
    axis = f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{zero:.1f}" y2="{zero:.1f}" stroke="#bbb"/>'
    return f'<svg width="{WIDTH + 200}" height="{HEIGHT}">{axis}{"".join(drawn)}</svg>'
