"""A backtest's page: what each policy would have cost, when the fitted one acted, and how often it would have cried wolf.

One self-contained HTML file from a `BacktestReport`; pure text, no clock. Written by `tasks/backtest.py`. To show
another part, write a function that returns HTML and call it in `render`.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import accumulate

from evergreen.monitoring.backtest.report import BacktestReport, PolicyFigures, by_rule
from evergreen.pages.chart import Line, Mark, line_chart
from evergreen.pages.markup import date, figure, page, table, text, tiles_of

LINES = {"never": "never", "every 4 weeks": "monthly", "the spec's own": "own", "fitted": "fitted"}
"""Policies that are drawn, and the name each line has; weekly retraining is the zero line."""
LEGEND = (
    ('<line class="line fitted" x1="0" x2="26" y1="7" y2="7"/>', "fitted policy"),
    ('<line class="line own" x1="0" x2="26" y1="7" y2="7"/>', "the model's file as it is"),
    ('<line class="line monthly" x1="0" x2="26" y1="7" y2="7"/>', "a retrain every four weeks"),
    ('<line class="line never" x1="0" x2="26" y1="7" y2="7"/>', "never anything"),
    ('<circle class="champion" cx="13" cy="7" r="5"/>', "the fitted policy retrains"),
)


def render(report: BacktestReport) -> str:
    """The whole page."""
    sections = [
        f"<header><h1>{text(report.model)}: retraining policies on its history</h1>"
        f'<p class="soft">Played from {date(report.played.start)} to {date(report.played.end)}, {report.weeks} windows. '
        f"Thresholds were fitted on {date(report.fitted_on.start)} to {date(report.fitted_on.end)}, which no figure here "
        "uses.</p></header>",
        tiles_of(_tiles(report)),
        *_chart(report),
        _policies(report),
        _chance(report),
        *_faults(report),
        _recommended(report),
        "<footer>A played policy serves from its slot on: no canary, every candidate passes its gate. Retrains are trainings "
        "of a new network; fine-tunes and recalibrations are cheaper remedies, and their CPU time counts.</footer>",
    ]
    return page(f"{report.model}: policies on history", sections)


def _named(report: BacktestReport, name: str) -> PolicyFigures:
    return next(one for one in report.policies if one.name == name)


def _tiles(report: BacktestReport) -> Iterator[tuple[str, str]]:
    fitted = _named(report, "fitted")
    yield f"{fitted.gain_share:.1%}", "of what weekly retraining gains over never retraining, kept by the fitted policy"
    yield f"{fitted.retrains} of {report.weeks - 1}", "retrains, beside weekly's one a window"
    alarms, upper = fitted.false_alarms_in_budget, fitted.false_alarms_in_budget_upper
    yield (
        figure(alarms, 2),
        f"false alarms in {report.budget_weeks} windows where nothing drifts, at most {figure(upper, 2)}",
    )
    if report.faults:
        caught, windows = (sum(getattr(one, key) for one in report.faults) for key in ("caught", "windows"))
        yield f"{caught} of {windows}", "broken windows noticed at the first look"


def _chart(report: BacktestReport) -> Iterator[str]:
    weekly, spans = _named(report, "weekly").weekly_log_loss, _spans(report)
    lines = [
        Line(line, tuple(accumulate((mine - best) / report.weeks for mine, best in zip(one.weekly_log_loss, weekly, strict=True))))
        for name, line in LINES.items()
        for one in report.policies
        if one.name == name
    ]  # fmt: skip
    fitted = _named(report, "fitted")
    marks = [Mark(at, "champion", f"{date(at)}: the fitted policy retrains") for at in fitted.retrained_at]
    signs = "".join(f'<span><svg viewBox="0 0 26 14">{sign}</svg>{what}</span>' for sign, what in LEGEND)
    title = "Log loss given away so far, beside retraining every week; lower is better"
    views = "".join(
        f'<div class="{kind}">{line_chart(title, spans, lines, marks, width=width, height=300, digits=3, span="window")}</div>'
        for kind, width in (("wide", 1080), ("narrow", 420))
    )
    yield f'<h2>Window by window</h2><div class="legend">{signs}</div><div class="card"><h3>{title}</h3>{views}</div>'


def _spans(report: BacktestReport) -> list[tuple[datetime, datetime]]:
    length = (report.played.end - report.played.start) / report.weeks
    return [(report.played.start + length * n, report.played.start + length * (n + 1)) for n in range(report.weeks)]


def _policies(report: BacktestReport) -> str:
    heads = (
        "policy", "#log loss", "#AUC", "#of weekly's gain", f"#retrains of {report.weeks - 1}", "#fine-tunes", "#recalibrations",
        "#training CPU s", "#alarms", f"#false alarms in {report.budget_weeks} windows",
    )  # fmt: skip
    rows = []
    for one in report.policies:
        rate, low, high = (
            one.false_alarms_in_budget,
            one.false_alarms_in_budget_lower,
            one.false_alarms_in_budget_upper,
        )
        false = "" if rate is None else f"{rate:.2f} <small>{figure(low, 2)} to {figure(high, 2)}</small>"
        cells = (
            f"{one.log_loss:.4f}", f"{one.auc:.4f}", f"{one.gain_share:.1%}", str(one.retrains), str(one.fine_tunes),
            str(one.recalibrations), f"{one.training_seconds:.0f}", str(one.alarms), false,
        )  # fmt: skip
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        name = f"<b>{text(one.name)}</b>" if one.name == "fitted" else text(one.name)
        rows.append(f"<tr><td>{name}</td>{numbers}</tr>")
    return (
        "<h2>Policy by policy</h2>"
        + table(heads, rows)
        + '<p class="soft">False alarms: on copies of history whose days were dealt out anew, where every alarm is false; '
        "with a 90% interval.</p>" + "".join(f'<p class="soft">{text(line)}</p>' for line in by_rule(report))
    )


def _chance(report: BacktestReport) -> str:
    kinds = (
        ("retrains alone", report.random_median, report.random_95th),
        ("with the fitted routine at every window between", report.random_routine_median, report.random_routine_95th),
    )
    rows = [
        f'<tr><td>{words}</td><td class="n">{median:.1%}</td><td class="n">{lucky:.1%}</td></tr>'
        for words, median, lucky in kinds
    ]
    heads = (
        f"{report.random_retrains} retrains in weeks that are drawn",
        "#of weekly's gain, half reach",
        "#one in twenty",
    )
    return "<h2>Beside chance</h2>" + table(heads, rows)


def _faults(report: BacktestReport) -> Iterator[str]:
    if not report.unbroken_looks and not report.faults:
        return
    rows = [
        f'<tr><td>{text(one.name)}</td><td class="n">{one.caught} of {one.windows}</td><td class="n">{one.remedies}</td></tr>'
        for one in report.faults
    ]
    told = "; ".join(report.false_faults) or "nothing"
    yield "<h2>Data broken on purpose</h2>"
    if rows:
        yield table(("what was done to a window", "#named at its first look", "#remedies started on it"), rows)
    yield f'<p class="soft">In {report.unbroken_looks} looks at the data as it came, called broken: {text(told)}.</p>'


def _recommended(report: BacktestReport) -> str:
    told = "".join(f"<dt>{text(key)}</dt><dd>{text(value)}</dd>" for key, value in report.recommended.items())
    made = ", ".join(f"{key} {value}" for key, value in report.trained_with.items())
    return (
        f'<h2>Recommended</h2><div class="card"><dl class="facts">{told}</dl>'
        f"<p>Written into <code>reports/{text(report.model)}.recommended.toml</code>, to be compared with the model's file. "
        f'At most {report.max_retrain_share:.0%} of the windows may end in a retrain.</p><p class="soft">Each model of the '
        f"play: {text(made)}.</p></div>"
    )
