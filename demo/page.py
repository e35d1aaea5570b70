"""The demo's page: `reports/demo.json` as one self-contained HTML file that asks nobody for anything.

Pure text from figures: no clock, no files but the style sheet of `evergreen/pages`. Called by `demo/story.py` at the end of
a run. To show another part of the story, write a function that returns HTML and call it in `render`; what comes from the
figures goes through `text`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from evergreen.pages.chart import Line, Mark, day, line_chart
from evergreen.pages.markup import badge, date, figure, page, paragraphs, paragraphs_html, text, tiles_of

CHARTS = (
    ("log_loss", "Log loss, lower is better", 2),
    ("auc", "Area under the ROC curve, higher is better", 2),
    ("calibration_gap", "Calibration gap: mean score minus the share that came true, best at 0", 2),
)
ACTIONS = {
    "start": "released",
    "advance": "share raised",
    "promote": "promoted",
    "roll_back": "rolled back",
    "ab_test": "A/B test began",
    "ab_promote": "A/B test won",
    "ab_keep": "A/B test lost",
    "ab_inconclusive": "A/B test without a verdict",
    "moved_by_hand": "alias moved by hand, put back",
}
LEGEND = (
    ('<line class="line served" x1="0" x2="26" y1="7" y2="7"/>', "what served"),
    ('<line class="line frozen" x1="0" x2="26" y1="7" y2="7"/>', "the first champion, had it stayed"),
    ('<path class="alarm" d="M7 12L13 1L19 12Z"/>', "alarm"),
    ('<rect class="fault" x="8" y="1" width="11" height="11" rx="1.5"/>', "broken data, holds retrains back"),
    ('<circle class="challenger" cx="13" cy="7" r="5"/>', "a challenger's share changes"),
    ('<circle class="champion" cx="13" cy="7" r="5"/>', "a champion takes over"),
)


def render(demo: Mapping[str, Any]) -> str:
    """The whole page; `demo` is what `reports/demo.json` holds. Figures that are None are shown as a dash."""
    span = f"{_date(demo['span']['start'])} to {_date(demo['span']['end'])}"
    sections = (
        f"<header><h1>{text(demo['model'])}: what served, and the first champion had it stayed</h1>"
        f'<p class="soft">{span}, played through the loop day by day. {_summary(demo["weeks"])}</p></header>',
        _tiles(demo),
        _charts(demo),
        _weeks(demo["weeks"]),
        _retrains(demo["retrains"]),
        _releases(demo["releases"]),
        _timings(demo["timings"]),
        f"<footer>Made {text(demo['generated_at'])}. Every figure stands in demo.json beside this page.</footer>",
    )
    return page(f"{demo['model']}, {span}", sections)


def mean_log_losses(weeks: Sequence[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Served and frozen over all weeks, weighted by their outcomes; None before there are any."""
    known = [
        (w["labelled"], w["served"]["log_loss"], w["frozen"]["log_loss"])
        for w in weeks
        if w["labelled"] and w["served"]["log_loss"] is not None and w["frozen"]["log_loss"] is not None
    ]
    rows = sum(labelled for labelled, _, _ in known)
    if not rows:
        return None
    return sum(n * served for n, served, _ in known) / rows, sum(n * frozen for n, _, frozen in known) / rows


def _summary(weeks: Sequence[Mapping[str, Any]]) -> str:
    means = mean_log_losses(weeks)
    if means is None:
        return "No outcome is in yet."
    served, frozen = means
    change = (served - frozen) / frozen
    side = "lower than" if change < 0 else "higher than"
    return f"What served had a log loss {abs(change):.1%} {side} the first champion's on the same flights."


def _tiles(demo: Mapping[str, Any]) -> str:
    weeks = demo["weeks"]
    means = mean_log_losses(weeks)
    trained = [retrain["verdict"] for retrain in demo["retrains"] if retrain["version"] is not None]
    tiles = [
        (f"{sum(week['flights'] for week in weeks):,}", f"predictions in {len(weeks)} weeks"),
        (figure(means and means[0], 4), "log loss of what served"),
        (figure(means and means[1], 4), "log loss of the first champion"),
        (str(sum(bool(week["alarms"]) for week in weeks)), "weeks with an alarm"),
        (f"{trained.count('passed')} of {len(trained)}", "trained versions passed the gate"),
    ]
    if weeks:
        tiles.append((f"version {weeks[-1]['serving']['champion']}", "serves at the end"))
    return tiles_of(tiles)


def _charts(demo: Mapping[str, Any]) -> str:
    weeks = [(_moment(week["start"]), _moment(week["end"])) for week in demo["weeks"]]
    marks = [*_alarm_marks(demo["weeks"]), *_release_marks(demo["releases"])]
    legend = "".join(f'<span><svg viewBox="0 0 26 14">{sign}</svg>{what}</span>' for sign, what in LEGEND)
    cards = []
    for key, title, digits in CHARTS:
        lines = [Line(who, tuple(week[who][key] for week in demo["weeks"])) for who in ("served", "frozen")]
        drawn = {
            name: line_chart(title, weeks, lines, marks, width=width, height=height, digits=digits)
            for name, width, height in (("wide", 1080, 280), ("narrow", 420, 270))
        }
        views = "".join(f'<div class="{name}">{svg}</div>' for name, svg in drawn.items())
        cards.append(f'<div class="card"><h3>{title}</h3>{views}</div>')
    return f'<h2>Week by week</h2><div class="legend">{legend}</div>{"".join(cards)}'


def _alarm_marks(weeks: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """Broken data has a mark of its own: it asks for another cure than an alarm does."""
    marks = []
    for week in weeks:
        start, end = _moment(week["start"]), _moment(week["end"])
        faults = [alarm["reason"] for alarm in week["alarms"] if alarm["trigger"] == "fault"]
        alarms = [alarm["reason"] for alarm in week["alarms"] if alarm["trigger"] != "fault"]
        if faults:
            marks.append(Mark(end, "fault", "\n".join(f"broken data: {reason}" for reason in faults), since=start))
        if alarms:
            marks.append(Mark(end, "alarm", "\n".join(f"alarm: {reason}" for reason in alarms)))
    return marks


def _release_marks(releases: Sequence[Mapping[str, Any]]) -> list[Mark]:
    marks = []
    for before, now in pairwise([None, *releases]):
        assert now is not None
        title = f"{_date(now['at'])}: {_action(now)}; {now['reason']}"
        if before is None or before["champion"] != now["champion"]:
            marks.append(Mark(_moment(now["at"]), "champion", title, f"v{now['champion']}"))
        else:
            marks.append(Mark(_moment(now["at"]), "challenger", title))
    return marks


def _action(release: Mapping[str, Any]) -> str:
    action = ACTIONS.get(release["action"], release["action"])
    if release["challenger"] is None:
        return f"{action}, version {release['champion']} is champion"
    return f"{action}, version {release['challenger']} takes {release['share']:.0%}"


def _weeks(weeks: Sequence[Mapping[str, Any]]) -> str:
    head = (
        '<tr><th rowspan="2">week</th><th rowspan="2">from</th><th rowspan="2" class="n">flights</th>'
        '<th colspan="2" class="c">log loss</th><th colspan="2" class="c">AUC</th>'
        '<th rowspan="2">alarms, and why</th><th rowspan="2">retrains</th><th rowspan="2">serves now</th></tr>'
        '<tr><th class="n">served</th><th class="n">frozen</th><th class="n">served</th><th class="n">frozen</th></tr>'
    )
    rows = "".join(_week(week) for week in weeks)
    return (
        '<h2>Every week</h2><div class="card scroll"><table class="weeks">'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def _week(week: Mapping[str, Any]) -> str:
    served, frozen = week["served"], week["frozen"]
    alarms = paragraphs(alarm["reason"] for alarm in week["alarms"])
    retrains = paragraphs_html(
        f'<span class="nowrap">{badge(r["verdict"])} {_version(r["version"])}</span>'
        f"<br><small>{text(r['cause'])}: {text(r['reason'])}</small>"
        for r in week["retrains"]
    )
    now = week["serving"]
    challenger = f"<br><small>version {now['challenger']} at {now['share']:.0%}</small>" if now["challenger"] else ""
    return (
        f"<tr{' class=alarmed' if week['alarms'] else ''}><td>{week['week']}</td>"
        f'<td class="nowrap">{day(_moment(week["start"]))}</td><td class="n">{week["flights"]:,}</td>'
        f"{_pair(served['log_loss'], frozen['log_loss'], 4, low_is_better=True)}"
        f"{_pair(served['auc'], frozen['auc'], 3, low_is_better=False)}"
        f'<td>{alarms}</td><td>{retrains}</td><td class="nowrap">version {now["champion"]}{challenger}</td></tr>'
    )


def _pair(served: float | None, frozen: float | None, digits: int, *, low_is_better: bool) -> str:
    shown = [figure(value, digits) for value in (served, frozen)]
    classes = ["n", "n"]
    if served is not None and frozen is not None and shown[0] != shown[1]:
        classes[(served < frozen) != low_is_better] += " better"
    return "".join(f'<td class="{name}">{value}</td>' for name, value in zip(classes, shown, strict=True))


def _retrains(retrains: Sequence[Mapping[str, Any]]) -> str:
    cards = "".join(_retrain(retrain) for retrain in retrains) or '<p class="soft">Nothing was trained.</p>'
    return f"<h2>Retrains and their gates</h2>{cards}"


def _retrain(retrain: Mapping[str, Any]) -> str:
    facts = [
        ("episode", text(retrain["episode"])),
        ("started by", text(retrain["via"])),
        ("flow run", text(retrain["flow_run_id"])),
        ("candidate", _pair_of_figures(retrain["candidate"])),
        ("champion", _pair_of_figures(retrain["champion"])),
        ("reasons", paragraphs(retrain["reasons"])),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts)
    return (
        f"<details><summary><b>{_date(retrain['as_of'])}</b>{badge(retrain['verdict'])}"
        f"<span>{_version(retrain['version'])}</span>"
        f'<span class="soft">cause: {text(retrain["cause"])}, started by: {text(retrain["via"])}</span>'
        f'<span class="push">{retrain["seconds"]:.1f} s</span></summary>'
        f'<div class="inside"><dl class="facts">{listed}</dl>{_checks(retrain["checks"])}</div></details>'
    )


def _checks(checks: Sequence[Mapping[str, Any]]) -> str:
    if not checks:
        return '<p class="soft">No candidate came to the gate.</p>'
    rows = "".join(
        f"<tr><td>{badge('passed' if check['passed'] else 'refused')}</td><td>{text(check['name'])}</td>"
        f'<td class="n">{check["figure"]:,.4g}</td><td>{text(check["rule"])}</td><td>{text(check["reason"])}</td></tr>'
        for check in checks
    )
    head = '<tr><th></th><th>check</th><th class="n">figure</th><th>rule</th><th>reason</th></tr>'
    return f'<div class="scroll"><table class="plain"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _releases(releases: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td class="nowrap">{_date(r["at"])}</td><td class="n">{r["revision"]}</td><td>{text(_action(r))}</td>'
        f"<td>{text(r['reason'])}</td></tr>"
        for r in releases
    )
    head = '<tr><th>at</th><th class="n">revision</th><th>change</th><th>reason</th></tr>'
    return (
        '<h2>The journal of releases</h2><div class="card scroll"><table class="plain">'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def _timings(timings: Mapping[str, float]) -> str:
    stages = {name: seconds for name, seconds in timings.items() if name != "total"}
    longest = max(stages.values(), default=0.0) or 1.0
    bars = "".join(
        f'<span>{text(name.replace("_", " "))}</span><i style="width:{100 * seconds / longest:.1f}%"></i>'
        f'<span class="n">{seconds:.1f} s</span>'
        for name, seconds in sorted(stages.items(), key=lambda stage: -stage[1])
    )
    total = f", {timings['total']:.0f} s in all" if "total" in timings else ""
    return f'<h2>Where the time went{total}</h2><div class="card bars">{bars}</div>'


def _version(version: int | None) -> str:
    return f"version {version}" if version is not None else "no version"


def _pair_of_figures(figures: Mapping[str, float] | None) -> str:
    if figures is None:
        return "—"
    return f"log loss {figure(figures['log_loss'], 4)}, AUC {figure(figures['auc'], 3)}"


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


def _date(iso: str) -> str:
    return date(_moment(iso))
