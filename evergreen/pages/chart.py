"""Lines over time as inline SVG: no script, no font, no request; colours come from the page's style sheet.

Pure text from figures. Called by the pages. To mark another kind of moment, give `Mark` another `kind` and draw it
in `_mark`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Literal

STYLE = Path(__file__).with_name("page.css")
"""Colours and shapes of every page."""
ALARM_LANE, RELEASE_LANE, PLOT_TOP = 12, 30, 46
"""Heights in pixels: alarms stand above releases, both above the plot, so that marks of one moment do not collide."""
LEFT, RIGHT, BOTTOM = 52, 60, 30


@dataclass(frozen=True)
class Line:
    """One figure a span; None leaves a gap."""

    name: str
    values: tuple[float | None, ...]
    bounds: tuple[tuple[float, float] | None, ...] = ()
    """Drawn as a band behind the line."""
    joined: bool = True
    """Else points alone, hollow: figures that are not what the others are."""


@dataclass(frozen=True)
class Mark:
    """A moment on the time axis."""

    at: datetime
    kind: Literal["alarm", "fault", "challenger", "champion"]
    title: str
    label: str = ""
    since: datetime | None = None
    """Of a fault: where the tint that ends with the mark begins."""


@dataclass(frozen=True)
class Scale:
    """Figures and moments → pixels."""

    start: datetime
    end: datetime
    ticks: tuple[float, ...]
    width: int
    height: int

    def x(self, moment: datetime) -> float:
        """Pixels from the left; moments outside the span stand on its edge."""
        share = (moment - self.start) / (self.end - self.start)
        return LEFT + min(max(share, 0.0), 1.0) * (self.width - LEFT - RIGHT)

    def y(self, figure: float) -> float:
        """Pixels from the top."""
        low, high = self.ticks[0], self.ticks[-1]
        return PLOT_TOP + (high - figure) / (high - low) * (self.height - PLOT_TOP - BOTTOM)


def line_chart(
    title: str,
    weeks: Sequence[tuple[datetime, datetime]],
    lines: Sequence[Line],
    marks: Sequence[Mark],
    *,
    width: int,
    height: int,
    digits: int,
    span: str = "week",
) -> str:
    """One SVG: every line has a figure a week, drawn in the week's middle; hovering a week shows its figures.

    `span` is what a stretch is called where it is no week.
    """
    known = [value for line in lines for value in line.values if value is not None]
    known += [bound for line in lines for both in line.bounds if both is not None for bound in both]
    if not weeks or not known:
        return f'<p class="empty">{escape(title)}: no figures yet.</p>'
    scale = Scale(weeks[0][0], weeks[-1][1], nice_ticks(min(known), max(known)), width, height)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">',
        *_grid(scale, digits),
        *_dates(scale, weeks),
        *(_mark(scale, mark) for mark in marks),
        *(part for line in lines for part in _band(scale, weeks, line)),
        *(part for line in reversed(lines) for part in _line(scale, weeks, line)),
        *_names(scale, lines),
        *(_hover(scale, f"{span} {number + 1}", number, week, lines, digits) for number, week in enumerate(weeks)),
        "</svg>",
    ]
    return "".join(parts)


def nice_ticks(low: float, high: float, about: int = 4) -> tuple[float, ...]:
    """Round figures that cover `low` to `high` in roughly `about` steps; never fewer than two."""
    reach = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(reach / about))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= reach / about)
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(round(n * step, 10) for n in range(first, max(last, first + 1) + 1))


def _grid(scale: Scale, digits: int) -> list[str]:
    drawn = []
    for tick in scale.ticks:
        y, kind = scale.y(tick), "grid zero" if tick == 0 else "grid"
        drawn.append(
            f'<line class="{kind}" x1="{LEFT}" x2="{scale.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:.{digits}f}</text>'
        )
    return drawn


def _dates(scale: Scale, weeks: Sequence[tuple[datetime, datetime]]) -> list[str]:
    room = max(1, (scale.width - LEFT - RIGHT) // 64)
    every = math.ceil(len(weeks) / room)
    return [
        f'<text class="tick" x="{scale.x(start):.1f}" y="{scale.height - 10}">{day(start)}</text>'
        for start, _ in weeks[::every]
    ]


def _mark(scale: Scale, mark: Mark) -> str:
    x, title = scale.x(mark.at), f"<title>{escape(mark.title)}</title>"
    if mark.kind == "alarm":
        y = ALARM_LANE
        return f'<path class="alarm" d="M{x - 6:.1f} {y + 5}L{x:.1f} {y - 6}L{x + 6:.1f} {y + 5}Z">{title}</path>'
    if mark.kind == "fault":
        return _fault(scale, mark, title)
    y, bottom = RELEASE_LANE, scale.height - BOTTOM
    label = f'<text class="mark" x="{x + 9:.1f}" y="{y + 4}">{escape(mark.label)}</text>' if mark.label else ""
    return (
        f'<line class="rule {mark.kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{bottom}"/>'
        f'<circle class="{mark.kind}" cx="{x:.1f}" cy="{y}" r="5">{title}</circle>{label}'
    )


def _fault(scale: Scale, mark: Mark, title: str) -> str:
    """A square where an alarm is a triangle, beside one of the same moment, and a tint over the stretch it spoils."""
    x, y = scale.x(mark.at), ALARM_LANE
    left = scale.x(mark.since or mark.at)
    return (
        f'<rect class="spoilt" x="{left:.1f}" y="{PLOT_TOP}" width="{max(x - left, 1):.1f}" '
        f'height="{scale.height - PLOT_TOP - BOTTOM}"/>'
        f'<rect class="fault" x="{x - 20:.1f}" y="{y - 6}" width="11" height="11" rx="1.5">{title}</rect>'
    )


def _band(scale: Scale, weeks: Sequence[tuple[datetime, datetime]], line: Line) -> list[str]:
    """The bounds as filled stretches, or as a whisker where a point stands alone."""
    runs: list[list[tuple[float, float, float]]] = [[]]
    for (start, end), both in zip(weeks, line.bounds, strict=False):
        if both is None:
            runs.append([])
        else:
            runs[-1].append((scale.x(start + (end - start) / 2), scale.y(both[0]), scale.y(both[1])))
    drawn = []
    for run in runs:
        if len(run) == 1 or (run and not line.joined):
            drawn += [
                f'<line class="whisker {line.name}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
                for x, low, high in run
            ]
        elif run:
            edge = [f"{x:.1f},{low:.1f}" for x, low, _ in run] + [f"{x:.1f},{high:.1f}" for x, _, high in run[::-1]]
            drawn.append(f'<polygon class="band {line.name}" points="{" ".join(edge)}"/>')
    return drawn


def _line(scale: Scale, weeks: Sequence[tuple[datetime, datetime]], line: Line) -> list[str]:
    runs: list[list[str]] = [[]]
    dots = []
    for (start, end), value in zip(weeks, line.values, strict=True):
        if value is None:
            runs.append([])
            continue
        x, y = scale.x(start + (end - start) / 2), scale.y(value)
        runs[-1].append(f"{x:.1f},{y:.1f}")
        dots.append(f'<circle class="dot {line.name}" cx="{x:.1f}" cy="{y:.1f}" r="{3 if line.joined else 4}"/>')
    if not line.joined:
        return dots
    return [f'<polyline class="line {line.name}" points="{" ".join(run)}"/>' for run in runs if run] + dots


def _names(scale: Scale, lines: Sequence[Line]) -> list[str]:
    """Each line's name at its end, pushed apart where the ends meet."""
    ends = {line.name: next((v for v in reversed(line.values) if v is not None), None) for line in lines}
    placed: list[str] = []
    lowest = -math.inf
    for name, y in sorted(((name, scale.y(v)) for name, v in ends.items() if v is not None), key=lambda end: end[1]):
        lowest = max(y + 4, lowest + 14)
        placed.append(f'<text class="name {name}" x="{scale.width - RIGHT + 6}" y="{lowest:.1f}">{escape(name)}</text>')
    return placed


def _hover(
    scale: Scale, name: str, number: int, week: tuple[datetime, datetime], lines: Sequence[Line], digits: int
) -> str:
    left, right = scale.x(week[0]), scale.x(week[1])
    told = [f"{name}, {day(week[0])} to {day(week[1])}"]
    for line in lines:
        value, both = line.values[number], line.bounds[number] if line.bounds else None
        bounds = "" if both is None else f" ({both[0]:.{digits + 2}f} to {both[1]:.{digits + 2}f})"
        told.append(f"{line.name} {'no figure' if value is None else f'{value:.{digits + 2}f}'}{bounds}")
    return (
        f'<rect class="hover" x="{left:.1f}" y="{PLOT_TOP}" width="{right - left:.1f}" '
        f'height="{scale.height - PLOT_TOP - BOTTOM}"><title>{escape(chr(10).join(told))}</title></rect>'
    )


def day(moment: datetime) -> str:
    """`1 Apr`."""
    return f"{moment.day} {moment:%b}"
