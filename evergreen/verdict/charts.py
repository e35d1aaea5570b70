"""The verdict's pictures as inline SVG; colours come from the page's style sheet.

Pure text from figures. Called by `page.py`.
"""

import math
from collections.abc import Sequence
from html import escape

from evergreen.types import ReliabilityBin
from evergreen.verdict.intervals import Interval

WIDTH = 960


def day_bars(days: Sequence[tuple[str, int, float]], mean: Interval, margin: float | None, digits: int = 4) -> str:
    """Change of loss day by day: a bar a day, the mean with its interval as a band, the margin as a line."""
    height, left, right, top, bottom = 280, 62, 10, 14, 34
    known = [change for _, _, change in days] + [mean.value, 0.0]
    known += [end for end in (mean.low, mean.high, margin) if end is not None]
    ticks = _ticks(min(known), max(known))

    def y(value: float) -> float:
        return top + (ticks[-1] - value) / (ticks[-1] - ticks[0]) * (height - top - bottom)

    step = (WIDTH - left - right) / max(len(days), 1)
    parts = [_open(height, "change of loss day by day")]
    parts += [_rung(tick, left, right, y(tick)) for tick in ticks]
    if mean.low is not None and mean.high is not None:
        parts.append(
            f'<rect class="band" x="{left}" width="{WIDTH - left - right}" y="{y(mean.high):.1f}" '
            f'height="{max(y(mean.low) - y(mean.high), 1):.1f}"/>'
        )
    every = math.ceil(len(days) / 12)
    for number, (day, rows, change) in enumerate(days):
        upper, lower = sorted((y(change), y(0.0)))
        bar, x = min(step * 0.62, 44), left + step * (number + 0.5)
        parts.append(
            f'<rect class="bar {"worse" if change > 0 else "better"}" x="{x - bar / 2:.1f}" width="{bar:.1f}" '
            f'y="{upper:.1f}" height="{max(lower - upper, 0.5):.1f}">'
            f"<title>{escape(day)}: {change:+.{digits}f} a row, {rows:,} rows</title></rect>"
        )
        if number % every == 0:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 12}" text-anchor="middle">{escape(day)}</text>')
    parts.append(_level("mean", left, y(mean.value), right, f"mean {mean.value:+.{digits}f}"))
    if margin is not None:
        parts.append(_level("margin", left, y(margin), right, f"margin {margin:+.{digits}f}"))
    return "".join([*parts, "</svg></div>"])


def forest(
    rows: Sequence[tuple[str, str, Interval]], limit: float | None = None, *, better_below: bool = True, digits: int = 4
) -> str:
    """A line a row: its name and a remark, the figure as a dot, its interval as a whisker, zero as an axis."""
    left, right, line = 250, 90, 26
    height = line * len(rows) + 44
    known = [0.0] + [end for _, _, one in rows for end in (one.value, one.low, one.high) if end is not None]
    known += [] if limit is None else [limit]
    ticks = _ticks(min(known), max(known))

    def x(value: float) -> float:
        return left + (value - ticks[0]) / (ticks[-1] - ticks[0]) * (WIDTH - left - right)

    bottom = height - 28
    parts = [_open(height, "figures with intervals")]
    for tick in ticks:
        kind = "grid zero" if tick == 0 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{bottom}"/>'
            f'<text class="tick" x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{_signed(tick)}</text>'
        )
    if limit is not None:
        parts.append(f'<line class="margin" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="8" y2="{bottom}"/>')
    for number, (name, remark, one) in enumerate(rows):
        y = 8 + line * (number + 0.5)
        low, high = (one.value if one.low is None else one.low), (one.value if one.high is None else one.high)
        sure = low > 0 or high < 0
        kind = "unsure" if not sure else "better" if (one.value < 0) == better_below else "worse"
        parts.append(
            f'<text class="label" x="0" y="{y + 4:.1f}">{escape(_short(name))}</text>'
            f'<text class="tick" x="{left - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(remark)}</text>'
            f'<line class="whisker {kind}" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<circle class="point {kind}" cx="{x(one.value):.1f}" cy="{y:.1f}" r="4.5">'
            f"<title>{escape(name)}: {one.value:+.{digits}f}, {low:+.{digits}f} to {high:+.{digits}f}</title></circle>"
            f'<text class="tick" x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{one.value:+.{digits}f}</text>'
        )
    return "".join([*parts, "</svg></div>"])


def reliability(candidate: Sequence[ReliabilityBin], champion: Sequence[ReliabilityBin]) -> str:
    """What came true beside what was said; the area of a dot goes with the rows behind it."""
    side, left, top, bottom = 420, 52, 12, 44

    def x(share: float) -> float:
        return left + share * (side - left - 12)

    def y(share: float) -> float:
        return top + (1 - share) * (side - top - bottom)

    parts = [f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="reliability diagram">']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<line class="grid" x1="{left}" x2="{x(1):.1f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
            f'<text class="tick" x="{x(tick):.1f}" y="{side - 24}" text-anchor="middle">{tick:.0%}</text>'
        )
    parts.append(f'<text class="tick" x="{x(0.5):.1f}" y="{side - 4}" text-anchor="middle">said</text>')
    parts.append(f'<line class="ideal" x1="{x(0):.1f}" y1="{y(0):.1f}" x2="{x(1):.1f}" y2="{y(1):.1f}"/>')
    for who, bins in (("champion", champion), ("candidate", candidate)):
        points = " ".join(f"{x(b.mean_score):.1f},{y(b.share):.1f}" for b in bins)
        most = max((b.rows for b in bins), default=1)
        parts.append(f'<polyline class="curve {who}" points="{points}"/>')
        parts += [
            f'<circle class="dot {who}" cx="{x(b.mean_score):.1f}" cy="{y(b.share):.1f}" '
            f'r="{2.5 + 6 * math.sqrt(b.rows / most):.1f}">'
            f"<title>{who}: said {b.mean_score:.1%}, came true {b.share:.1%}, {b.rows:,} rows</title></circle>"
            for b in bins
        ]
    return "".join([*parts, "</svg>"])


def _open(height: float, what: str) -> str:
    return f'<div class="scroll"><svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{what}">'


def _rung(tick: float, left: float, right: float, y: float) -> str:
    return (
        f'<line class="{"grid zero" if tick == 0 else "grid"}" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{_signed(tick)}</text>'
    )


def _level(kind: str, left: float, y: float, right: float, words: str) -> str:
    return (
        f'<line class="{kind}" x1="{left}" x2="{WIDTH - right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="on {kind}" x="{WIDTH - right}" y="{y - 5:.1f}" text-anchor="end">{escape(words)}</text>'
    )


def _short(name: str, most: int = 26) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _signed(tick: float) -> str:
    return "0" if tick == 0 else f"{tick:+.3g}"


def _ticks(low: float, high: float, about: int = 4) -> tuple[float, ...]:
    """Round figures from below `low` to above `high`."""
    reach = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(reach / about))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= reach / about * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(round(n * step, 12) for n in range(first, max(last, first + 1) + 1))
