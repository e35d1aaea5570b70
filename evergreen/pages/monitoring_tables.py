"""The tables of a model's monitoring page, one function each: what was said and came true, slices, features, looks,
asks for a retrain, releases.

Pure text. Called by `monitoring.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from evergreen.pages.chart import day
from evergreen.pages.markup import badge, date, figure, paragraphs, table, text
from evergreen.types import (
    LOSS_NAMES,
    Cause,
    DriftReport,
    FeatureDrift,
    FeatureShift,
    Interval,
    JournalEntry,
    PerformanceReport,
    RetrainRequest,
    Task,
    WatchRecord,
    WindowEstimate,
)

ACTIONS = {"start": "released", "advance": "share raised", "promote": "promoted", "roll_back": "rolled back"}
MOST_LOOKS = 26


def estimates(said: Sequence[WindowEstimate], task: Task) -> str:
    """What was said of each window before its outcomes were in, and what came true."""
    loss = LOSS_NAMES[task]
    if not said:
        return ""
    note = next((one.unavailable for one in said if one.unavailable is not None), None)
    rows = []
    for one in said[:MOST_LOOKS]:
        told = one.estimate.figures.get(loss.figure) if one.estimate is not None else None
        fixed = one.censored.figures.get(loss.figure) if one.censored is not None else None
        naive = one.censored.naive.get(loss.figure) if one.censored is not None else None
        came = None if one.realised is None else one.realised.get(loss.figure)
        error = one.errors.get(loss.figure)
        rows.append(
            f'<tr><td class="nowrap">{day(one.window.start)} to {date(one.window.end)}</td>'
            f'<td class="n">{one.version}</td><td class="nowrap">{_part(one.label_share)}{one.label_share:.0%}</td>'
            f'<td class="n">{_interval(told)}</td><td class="n">{figure(naive, 4)}</td><td class="n">{_interval(fixed)}</td>'
            f'<td class="n">{figure(came, 4)}</td><td class="n">{"—" if error is None else f"{error:+.4f}"}</td></tr>'
        )
    heads = (
        "window", "#version", "outcomes in", f"#{loss.words} estimated", "#by outcomes in", "#corrected", "#came true",
        "#error",
    )  # fmt: skip
    lead = (
        "Estimated: from scores alone, calibrated on earlier outcomes (CBPE). Corrected: early outcomes weighted for those "
        "that are still out. Error: estimated less what came true."
    )
    none = f'<p class="soft">No estimate: {text(note)}.</p>' if note else ""
    return (
        f'<h2>Said before outcomes were in, and what came true</h2><p class="soft">{lead}</p>{none}{table(heads, rows)}'
    )


def slices(performance: PerformanceReport | None, task: Task) -> str:
    """The newest judged window by slice, its loss beside the whole's."""
    if performance is None or not performance.slices:
        return ""
    loss = LOSS_NAMES[task]
    whole = performance.intervals.get(loss.figure)
    shown = [(part, part.figures[loss.figure]) for part in performance.slices]
    ends = [bound for _, i in shown for bound in (i.low, i.high, i.figure) if bound is not None]
    low, high = min(ends), max(ends)
    rows = [
        f'<tr><td class="nowrap">{text(part.name)}</td><td class="n">{part.rows:,}</td><td class="n">{found.figure:.4f}</td>'
        f'<td class="whiskers">{_whisker(found, whole, low, high)}</td>'
        f'<td class="n">{_interval(part.figures.get("auc"), 3)}</td>'
        f'<td class="n">{_interval(part.figures.get("calibration_gap"), 3)}</td></tr>'
        for part, found in shown
    ]
    heads = ("slice", "#outcomes", f"#{loss.words}", "interval, the line is the whole's", "#AUC", "#calibration gap")
    return f"<h2>Slices of the newest judged window</h2>{table(heads, rows)}"


def features(drift: DriftReport | None, importance: Mapping[str, float]) -> str:
    """Every feature, by how far it moved beyond the usual times what the champion leans on it."""
    if drift is None:
        return ""
    judged: Sequence[FeatureShift | FeatureDrift] = drift.verdict.features if drift.verdict else drift.features
    weights = importance or dict.fromkeys((one.feature for one in judged), 1.0)
    ranked = sorted(judged, key=lambda one: (-_beyond(one) * weights.get(one.feature, 0.0), -_beyond(one)))
    most = max((_beyond(one) * weights.get(one.feature, 0.0) for one in ranked), default=0.0) or 1.0
    moved = [one for one in ranked if _beyond(one) > 0]
    rows = [_feature(one, importance, _beyond(one) * weights.get(one.feature, 0.0) / most) for one in moved]
    others = [_feature(one, importance, 0.0) for one in ranked if one not in moved]
    told = (
        "drift beyond the usual times importance" if importance else "drift beyond the usual; importance is not known"
    )
    verdict = drift.verdict
    lead = (
        f"{verdict.share:.0%} of the features drifted; chance that none did {verdict.p_value:.4f}, days being exchanged "
        f"{verdict.permutations:,} times (seed {verdict.seed})."
        if verdict
        else "By Evidently's distances: too few days to calibrate them."
    )
    heads = ("feature", "rank", "#distance", "#usual", "#chance", "#importance", "")
    rest = (
        f"<details><summary>{len(others)} more, no further from before than usual</summary>"
        f'<div class="inside">{table(heads, others)}</div></details>'
        if others
        else ""
    )
    first = table(heads, rows) if rows else ""
    return f'<h2>Features, by {told}</h2><p class="soft">{lead}</p>{first}{rest}'


def looks(records: Sequence[WatchRecord], task: Task) -> str:
    """Every look: what it saw and what was decided, alarms and faults apart."""
    rows = [_look(record) for record in records[:MOST_LOOKS]]
    heads = ("window", "#version", "#outcomes", f"#{LOSS_NAMES[task].words}", "verdict", "why", "")
    more = len(records) - len(rows)
    rest = f'<p class="soft">and {more} before.</p>' if more > 0 else ""
    return f"<h2>Every look of the watch</h2>{table(heads, rows, 'weeks')}{rest}" if rows else ""


def requests(asked: Sequence[RetrainRequest]) -> str:
    """Every ask for a retrain and what became of it, the suppressed ones with their reason."""
    rows = [
        f'<tr><td class="nowrap">{date(one.as_of)}</td><td>{badge(one.status)}</td><td>{text(one.cause.value)}</td>'
        f"<td>{text(one.remedy.value)}</td>"
        f"<td>{text(one.reason)}</td><td>{'—' if one.version is None else f'version {one.version}'}</td></tr>"
        for one in asked[:MOST_LOOKS]
    ]
    heads = ("as of", "", "cause", "remedy", "reason", "came to")
    return f"<h2>Asks for a retrain</h2>{table(heads, rows)}" if rows else ""


def releases(journal: Sequence[JournalEntry]) -> str:
    """The journal, newest first."""
    rows = [
        f'<tr><td class="nowrap">{date(entry.at)}</td><td class="n">{entry.revision}</td><td>{text(action(entry))}</td>'
        f"<td>{text(entry.actor)}</td><td>{text(entry.reason)}</td>"
        f'<td class="nowrap">{"—" if entry.recorded_at is None else _minute(entry.recorded_at)}</td></tr>'
        for entry in list(journal)[::-1][:MOST_LOOKS]
    ]
    heads = ("as of", "#revision", "change", "by", "reason", "written down (UTC)")
    return f"<h2>Releases</h2>{table(heads, rows)}" if rows else ""


def _minute(at: datetime) -> str:
    return f"{date(at)} {at:%H:%M}"


def action(entry: JournalEntry) -> str:
    """A change of a release in words."""
    told = ACTIONS.get(entry.action, entry.action)
    if entry.after.challenger is None:
        return f"{told}, version {entry.after.champion} is champion"
    return f"{told}, version {entry.after.challenger} takes {entry.after.challenger_share:.0%}"


def _look(record: WatchRecord) -> str:
    check, seen = record.check, record.performance
    faulty = any(alarm.trigger == Cause.FAULT for alarm in check.alarms)
    kind = "fault" if faulty else "alarm" if check.alarms else "quiet"
    told = {"fault": "broken data", "alarm": "alarm", "quiet": "quiet"}[kind]
    asked = f"<br><small>asked for: {text(check.remedy.value)}</small>" if check.retrain else ""
    link = f'<a href="{text(check.report_uri)}">Evidently</a>' if check.report_uri else ""
    why = paragraphs(alarm.reason for alarm in check.alarms) if check.alarms else ""
    everything = f"<details><summary>all findings</summary>{paragraphs(record.reasons)}</details>"
    row = {"fault": " class=faulty", "alarm": " class=alarmed", "quiet": ""}[kind]
    loss = None if seen.scores is None else seen.scores.loss
    drawn = f"<br><small>figured: {seen.figured:,}</small>" if 0 < seen.figured < seen.labelled else ""
    return (
        f'<tr{row}><td class="nowrap">{day(check.window.start)} to {date(check.window.end)}</td>'
        f'<td class="n">{check.version}</td><td class="n">{seen.labelled:,} of {seen.served:,}{drawn}</td>'
        f'<td class="n">{figure(loss, 4)}</td><td class="nowrap">{badge(kind, told)}{asked}</td>'
        f"<td>{why}{everything}</td><td>{link}</td></tr>"
    )


def _feature(one: FeatureShift | FeatureDrift, importance: Mapping[str, float], part: float) -> str:
    far, usual = _distance(one)
    chance = one.adjusted_p_value if isinstance(one, FeatureShift) else None
    return (
        f'<tr><td class="nowrap">{text(one.feature)}</td><td class="nowrap">{_part(part)}</td><td class="n">{far:.3f}</td>'
        f'<td class="n">{usual:.3f}</td><td class="n">{figure(chance, 4)}</td>'
        f'<td class="n">{figure(importance.get(one.feature), 4)}</td>'
        f"<td>{badge('alarm', 'drifted') if one.drifted else ''}</td></tr>"
    )


def _distance(one: FeatureShift | FeatureDrift) -> tuple[float, float]:
    """How far it moved, and how far it may."""
    if isinstance(one, FeatureShift):
        return one.distance, one.usual_distance
    return one.score, one.threshold


def _beyond(one: FeatureShift | FeatureDrift) -> float:
    """Distance beyond what is usual; what stays within it has not moved."""
    far, usual = _distance(one)
    return max(far - usual, 0.0)


def _part(share: float) -> str:
    return f'<span class="part"><i style="width:{100 * min(max(share, 0.0), 1.0):.0f}%"></i></span>'


def _interval(interval: Interval | None, digits: int = 4) -> str:
    if interval is None:
        return "—"
    if interval.low is None or interval.high is None:
        return f"{interval.figure:.{digits}f}"
    return f"{interval.figure:.{digits}f}<br><small>{interval.low:.{digits}f} to {interval.high:.{digits}f}</small>"


def _whisker(found: Interval, whole: Interval | None, low: float, high: float) -> str:
    """A dot with its bounds on the scale of all slices."""
    return "".join(_drawn(found, whole, low, high))


def _drawn(found: Interval, whole: Interval | None, low: float, high: float) -> Iterator[str]:
    def x(value: float) -> float:
        return 4 + 192 * (min(max(value, low), high) - low) / ((high - low) or 1.0)

    yield '<svg viewBox="0 0 200 14" preserveAspectRatio="xMinYMid">'
    if whole is not None:
        yield f'<line class="grid zero" x1="{x(whole.figure):.1f}" x2="{x(whole.figure):.1f}" y1="0" y2="14"/>'
    if found.low is not None and found.high is not None:
        yield f'<line class="whisker" x1="{x(found.low):.1f}" x2="{x(found.high):.1f}" y1="7" y2="7"/>'
    yield f'<circle class="dot realised" cx="{x(found.figure):.1f}" cy="7" r="3.5"/></svg>'
