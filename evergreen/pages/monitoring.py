"""A model's monitoring page: how it does, what is said before outcomes are in, what alarmed, what broke, what was done.

One self-contained HTML file from what is on record; pure text, no clock. Written by `tasks/watch.py` at every look.
Data faults look different from alarms throughout: squares and a violet tint, where an alarm is a red triangle, since
they ask for another cure. The tables below the charts are in `monitoring_tables.py`. To show another part, write a
function that returns HTML and call it in `render`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from datetime import date as date_type

from evergreen.pages import monitoring_tables as tables
from evergreen.pages.chart import Line, Mark, line_chart
from evergreen.pages.markup import date, figure, page, paragraphs, text, tiles_of
from evergreen.types import (
    LOSS_NAMES,
    Alarm,
    Cause,
    Interval,
    JournalEntry,
    RetrainRequest,
    Task,
    WatchRecord,
    Window,
    WindowEstimate,
)

LEGEND = (
    ('<line class="line realised" x1="0" x2="26" y1="7" y2="7"/>', "came true, with its interval"),
    ('<line class="line estimated" x1="0" x2="26" y1="7" y2="7"/>', "estimated without outcomes"),
    ('<circle class="dot corrected" cx="13" cy="7" r="4"/>', "outcomes partly in, corrected"),
    ('<path class="alarm" d="M7 12L13 1L19 12Z"/>', "alarm"),
    ('<rect class="fault" x="8" y="1" width="11" height="11" rx="1.5"/>', "broken data, holds retrains back"),
    ('<circle class="challenger" cx="13" cy="7" r="5"/>', "a challenger's share changes"),
    ('<circle class="champion" cx="13" cy="7" r="5"/>', "a champion takes over"),
)
CHARTS = (
    ("auc", "Area under the ROC curve, higher is better", 2),
    ("accuracy", "Share of the likeliest class that came true, higher is better", 2),
    ("calibration_gap", "Calibration gap: mean score less what came true, best at 0", 2),
)


@dataclass(frozen=True)
class Monitored:
    """What is on record of one model."""

    model: str
    task: Task
    as_of: datetime
    records: Sequence[WatchRecord]
    """Looks of the watch, newest first."""
    estimates: Sequence[WindowEstimate]
    """Newest first."""
    journal: Sequence[JournalEntry] = ()
    """Of its releases, oldest first."""
    requests: Sequence[RetrainRequest] = ()
    """Asks for a retrain, newest first, the suppressed ones among them."""
    importance: Mapping[str, float] = field(default_factory=dict)
    """Feature → what the champion leans on it; empty where nobody measured it."""


@dataclass(frozen=True)
class _Moment:
    """One window on the time axis: what is known of it."""

    span: tuple[datetime, datetime]
    """The part of it that the window before did not have."""
    record: WatchRecord | None
    estimate: WindowEstimate | None


def render(monitored: Monitored) -> str:
    """The whole page."""
    m = monitored
    newest = m.records[0] if m.records else None
    sections = [
        f"<header><h1>{text(m.model)}: how it does</h1>"
        f'<p class="soft">As of {date(m.as_of)} {m.as_of:%H:%M} UTC, from what the watch has on record.</p></header>',
        _state(newest),
        tiles_of(_tiles(m, newest)),
        *_charts(m),
        _days(m),
        tables.estimates(m.estimates, m.task),
        tables.looks(m.records, m.task),
        tables.requests(m.requests),
        tables.slices(newest.performance if newest else None, m.task),
        tables.features(newest.drift if newest else None, m.importance),
        tables.releases(m.journal),
        "<footer>Intervals are 95%, days being the sample: no interval means too few days.</footer>",
    ]
    return page(f"{m.model}, monitored", sections)


def of_kind(alarms: Sequence[Alarm], *, faults: bool) -> list[Alarm]:
    """Those that say that the data is broken, or the others."""
    return [alarm for alarm in alarms if (alarm.trigger == Cause.FAULT) == faults]


def _state(newest: WatchRecord | None) -> str:
    """What the newest look came to, in words."""
    if newest is None:
        return '<div class="state"><b>No window was judged yet.</b></div>'
    faults = of_kind(newest.check.alarms, faults=True)
    alarms = of_kind(newest.check.alarms, faults=False)
    if faults:
        kind, told = "fault", "The data is broken: retrains are held back until it is whole again."
    elif alarms:
        asked = newest.check.remedy if newest.check.retrain else "nothing"
        kind, told = "alarm", f"It alarms; asked for: {asked}."
    elif newest.check.retrain:
        kind, told = "quiet", f"Nothing alarms; asked for, as at every check: {newest.check.remedy}."
    else:
        kind, told = "quiet", "Nothing alarms."
    window = _window(newest.check.window)
    return (
        f'<div class="state {kind}"><b>{told}</b><p class="soft">Version {newest.check.version} in {window}.</p>'
        f"{paragraphs(alarm.reason for alarm in [*faults, *alarms]) if newest.check.alarms else ''}</div>"
    )


def _tiles(m: Monitored, newest: WatchRecord | None) -> Iterator[tuple[str, str]]:
    loss = LOSS_NAMES[m.task]
    if newest is not None:
        came = newest.performance.intervals.get(loss.figure)
        yield figure(None if came is None else came.figure, 4), f"{loss.words} that came true{_between(came)}"
        if newest.drift is not None:
            yield f"{newest.drift.share:.0%}", f"of {len(newest.drift.features)} features drifted"
        yield (
            str(len(of_kind(newest.check.alarms, faults=True))),
            "data faults open",
        )
    if m.estimates:
        said = m.estimates[0]
        told = said.estimate.figures.get(loss.figure) if said.estimate else None
        yield (
            figure(None if told is None else told.figure, 4),
            f"{loss.words} estimated for the newest window{_between(told)}",
        )
        yield f"{said.label_share:.0%}", f"of its {said.served:,} outcomes were in"
    errors = [one.errors[loss.figure] for one in m.estimates if loss.figure in one.errors]
    if errors:
        mean = sum(abs(error) for error in errors) / len(errors)
        yield f"{mean:.4f}", f"mean error of the estimate, {len(errors)} window{'s' * (len(errors) > 1)}"


def _between(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return ""
    return f"<br>{interval.low:.4f} to {interval.high:.4f}"


def _charts(m: Monitored) -> Iterator[str]:
    moments = _moments(m)
    if not moments:
        return
    marks = [*_alarm_marks(moments), *_release_marks(m.journal, moments[0].span[0], m.as_of)]
    signs = "".join(f'<span><svg viewBox="0 0 26 14">{sign}</svg>{what}</span>' for sign, what in LEGEND)
    yield f'<h2>Window by window</h2><div class="legend">{signs}</div>'
    loss = LOSS_NAMES[m.task]
    title = f"{loss.words[0].upper()}{loss.words[1:]}, lower is better"
    for key, words, digits in ((loss.figure, title, 2), *CHARTS):
        if key == "accuracy" and m.task != "multiclass":
            continue  # of two classes the AUC says more
        lines = _lines(moments, key)
        if any(value is not None for line in lines for value in line.values):
            yield _card(words, [moment.span for moment in moments], lines, marks, digits, "window")


def _card(
    title: str,
    spans: Sequence[tuple[datetime, datetime]],
    lines: Sequence[Line],
    marks: Sequence[Mark],
    digits: int,
    span: str,
) -> str:
    views = "".join(
        f'<div class="{name}">'
        f"{line_chart(title, spans, lines, marks, width=width, height=height, digits=digits, span=span)}</div>"
        for name, width, height in (("wide", 1080, 260), ("narrow", 420, 260))
    )
    return f'<div class="card"><h3>{text(title)}</h3>{views}</div>'


def _moments(m: Monitored) -> list[_Moment]:
    """Windows that were judged or estimated, oldest first, each where it ends."""
    records = {record.check.window.end: record for record in m.records}
    estimates = {one.window.end: one for one in reversed(m.estimates)}
    found: list[_Moment] = []
    for end in sorted(records.keys() | estimates.keys()):
        record, said = records.get(end), estimates.get(end)
        window = record.check.window if record is not None else said.window if said is not None else None
        assert window is not None
        start = max(window.start, found[-1].span[1]) if found else window.start
        found.append(_Moment((start, end), record, said))
    return found


def _lines(moments: Sequence[_Moment], key: str) -> list[Line]:
    came, said, corrected = [], [], []
    for moment in moments:
        realised = moment.record.performance.intervals.get(key) if moment.record else None
        one = moment.estimate
        came.append(realised)
        said.append(one.estimate.figures.get(key) if one is not None and one.estimate is not None else None)
        censored = one.censored if one is not None and realised is None else None
        corrected.append(censored.figures.get(key) if censored is not None else None)
    lines = [_line("realised", came, True), _line("estimated", said, True), _line("corrected", corrected, False)]
    return [line for line in lines if any(value is not None for value in line.values)]


def _line(name: str, intervals: Sequence[Interval | None], joined: bool) -> Line:
    bounds = tuple(
        None if i is None or i.low is None or i.high is None or name == "estimated" else (i.low, i.high)
        for i in intervals
    )
    return Line(name, tuple(None if i is None else i.figure for i in intervals), bounds, joined)


def _alarm_marks(moments: Sequence[_Moment]) -> Iterator[Mark]:
    for moment in moments:
        alarms = moment.record.check.alarms if moment.record is not None else ()
        for faults, kind, word in ((True, "fault", "broken data"), (False, "alarm", "alarm")):
            told = [f"{word}: {alarm.reason}" for alarm in of_kind(alarms, faults=faults)]
            if told:
                start, end = moment.span
                yield Mark(end, "fault" if kind == "fault" else "alarm", "\n".join(told), since=start)


def _release_marks(journal: Sequence[JournalEntry], start: datetime, end: datetime) -> Iterator[Mark]:
    for entry in journal:
        if not start <= entry.at <= end:
            continue
        title = f"{date(entry.at)}: {tables.action(entry)}; {entry.reason}"
        if entry.before is None or entry.before.champion != entry.after.champion:
            yield Mark(entry.at, "champion", title, f"v{entry.after.champion}")
        else:
            yield Mark(entry.at, "challenger", title)


def _days(m: Monitored) -> str:
    """The calibration gap of each day that was ever in a judged window, as the newest look at it has it."""
    gaps: dict[date_type, float] = {}
    for record in reversed(m.records):
        gaps |= {one.day: one.calibration_gap for one in record.performance.by_day}
    if len(gaps) < 2:
        return ""
    first = min(gaps)
    calendar = [first + timedelta(days=n) for n in range((max(gaps) - first).days + 1)]
    spans = [
        (datetime.combine(day, time(), UTC), datetime.combine(day, time(), UTC) + timedelta(days=1)) for day in calendar
    ]
    line = Line("gap", tuple(gaps.get(day) for day in calendar))
    return "<h2>Calibration, day by day</h2>" + _card(
        "Mean score less what came true on the day; one day's has no interval", spans, [line], [], 2, "day"
    )


def _window(window: Window) -> str:
    return f"{date(window.start)} to {date(window.end)}"
