"""Matplotlib: the pictures of a training and its verdict, as PNG.

The only module that imports it. Figures are made without `pyplot`, so nothing is global and any thread may draw.
Called by `tasks/plots.py`.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from evergreen.types import Attribution, Evaluation, ReliabilityBin

GREEN, BROWN, GREY = "#2f7d4f", "#b0703c", "#8a8f98"
INCHES, DOTS = (7.2, 4.6), 130


def training_curve(curve: Sequence[Mapping[str, float]], title: str) -> bytes:
    """Train and validation loss of each epoch, the learning rate below; a row an epoch as in `TrainedModel.curve`."""
    figure, (losses, rates) = _figure(title)
    epochs = [row["epoch"] for row in curve]
    _line(losses, epochs, curve, "train_loss", GREY, "training rows, disturbed by noise and dropout")
    _line(losses, epochs, curve, "validation_loss", GREEN, "validation days")
    losses.set_ylabel("loss")
    losses.legend(frameon=False, fontsize=9)
    _line(rates, epochs, curve, "learning_rate", BROWN, "learning rate")
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    rates.set_xlabel("epoch")
    rates.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def reliability_diagram(candidate: Evaluation, champion: Evaluation | None, title: str) -> bytes:
    """What came true beside what was said, and how many rows stand behind each point."""
    figure, (points, counts) = _figure(title)
    points.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="said what came true")
    drawn = [("candidate", candidate, GREEN, -0.011)]
    if champion is not None:
        drawn.append(("champion", champion, BROWN, 0.011))
    for name, evaluation, color, shift in drawn:
        bins = evaluation.reliability
        label = f"{name}, log loss {evaluation.overall['log_loss']:.4f}"
        points.plot(_said(bins), [b.share for b in bins], color=color, marker="o", markersize=5, label=label)
        middles = [min(int(b.mean_score * 10), 9) / 10 + 0.05 + shift * (champion is not None) for b in bins]
        counts.bar(middles, [b.rows for b in bins], width=0.022 if champion else 0.06, color=color)
    points.set_xlim(0, 1)
    points.set_ylim(0, 1)
    points.set_ylabel("came true")
    points.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    points.legend(frameon=False, fontsize=9, loc="upper left")
    counts.set_ylabel("rows")
    counts.set_xlabel("said, in bins of a tenth")
    counts.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    counts.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    counts.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return _png(figure)


def daily_difference(days: Sequence[tuple[str, int, float]], title: str) -> bytes:
    """Change of the loss over the champion, day by day, and the rows behind it; days as `verdict.day_changes` has them."""
    figure, (changes, counts) = _figure(title)
    names, places = [day for day, _, _ in days], range(len(days))
    changes.axhline(0.0, color=GREY, linewidth=1)
    changes.bar(places, [change for _, _, change in days], color=[BROWN if c > 0 else GREEN for _, _, c in days])
    changes.set_ylabel("change of the loss of a row")
    counts.bar(places, [rows for _, rows, _ in days], color=GREY)
    counts.set_ylabel("rows")
    every = max(1, len(days) // 12)
    counts.set_xticks(list(places)[::every], names[::every])
    return _png(figure)


def importances(attribution: Attribution, title: str, most: int = 20) -> bytes:
    """Rise of the loss when a feature is shuffled, with two standard errors, the weightiest first."""
    figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    _plain(axes, "x")
    leading = attribution.features[:most]
    places = list(range(len(leading)))
    errors = [2 * (one.error or 0.0) for one in leading]
    axes.barh(places, [one.rise for one in leading], xerr=errors, color=GREEN, ecolor=GREY)
    axes.set_yticks(places, [one.feature for one in leading], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("rise of the loss when shuffled")
    return _png(figure)


def _said(bins: Sequence[ReliabilityBin]) -> list[float]:
    return [b.mean_score for b in bins]


def _figure(title: str) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=INCHES, dpi=DOTS, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", fontweight="bold")
    for axes in (upper, lower):
        _plain(axes, "y")
    return figure, (upper, lower)


def _plain(axes: Axes, rungs: Literal["x", "y"]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=rungs, color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)


def _line(
    axes: Axes, epochs: Sequence[float], curve: Sequence[Mapping[str, float]], name: str, color: str, label: str
) -> None:
    known = [(epoch, row[name]) for epoch, row in zip(epochs, curve, strict=True) if name in row]
    if known:
        axes.plot(*zip(*known, strict=True), color=color, marker="o", markersize=4, label=label)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
