"""What the demo does, in order, with its progress on the terminal and its figures on disk."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from os.path import relpath
from pathlib import Path
from typing import Any

import orjson
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from demo.figures import retold, table
from demo.page import render
from demo.replay import Replay
from evergreen.types import Cause
from evergreen.wiring import wiring
from stack.drain import drain

MODEL = "flight_delay"
FIRST = datetime(2013, 4, 1, 18, tzinfo=UTC)
"""Afternoon in New York: what the first model is trained on ends here, and each simulated day does."""


@dataclass
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the block's wall time to `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


def tell(console: Console, weeks: int, reports: Path, begun: float, wait_for_stack: Callable[[], None]) -> None:
    """Play `weeks` weeks and write `demo.json` and `demo.html` into `reports`; `begun` is when the clock was started."""
    timings = Timings()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),  # a second of idle wait a flow otherwise
        Progress(*columns, console=console) as progress,
    ):
        replay = Replay(
            wiring(), MODEL, timings, say=lambda line: progress.console.print(line, highlight=False, markup=False)
        )
        _prepare(progress, replay, wait_for_stack)
        _play(progress, replay, weeks)
        with timings.stage("figures"):
            drain()
            story = retold(replay)
    timings.seconds["total"] = time.perf_counter() - begun
    story["timings"] = {name: round(seconds, 3) for name, seconds in timings.seconds.items()}
    console.print(table(story))
    _write(console, story, reports)


def _prepare(progress: Progress, replay: Replay, wait_for_stack: Callable[[], None]) -> None:
    bar = progress.add_task("First model", total=3, detail="January to March: raw tables and features")
    with replay.timings.stage("history"):
        replay.history(FIRST)
    progress.update(bar, advance=1, detail="waiting for Prefect, its worker and the serving API")
    with replay.timings.stage("stack"):
        wait_for_stack()
    progress.update(bar, advance=1, detail="training")
    with replay.timings.stage("first_model"):
        outcome = replay.retrain(FIRST, Cause.BOOTSTRAP, on_line=lambda line: progress.update(bar, detail=line))
    progress.update(
        bar, advance=1, detail=f"version {outcome.version.version if outcome.version else '—'} {outcome.verdict}"
    )


def _play(progress: Progress, replay: Replay, weeks: int) -> None:
    bar = progress.add_task("2013", total=7 * weeks, detail="")
    for week in range(weeks):
        start = FIRST + timedelta(weeks=week)
        for day in range(1, 8):
            at = start + timedelta(days=day)
            progress.update(bar, detail=f"{at:%a %d %b} · {replay.serving_now()}")
            replay.day(at)
            progress.update(bar, advance=1)
        progress.update(bar, detail=f"week {week + 1}: watching")
        replay.week(start, start + timedelta(weeks=1))


def _write(console: Console, story: dict[str, Any], reports: Path) -> None:
    (reports / "demo.json").write_bytes(orjson.dumps(story, option=orjson.OPT_INDENT_2))
    (reports / "demo.html").write_text(render(story))
    shown, home = relpath(reports), relpath(wiring().settings.home)
    console.print(f"Every figure: {shown}/demo.json · the page: {shown}/demo.html")
    console.print(f"The same state in the pages of Prefect and MLflow: EVERGREEN_HOME={home} make up")
