"""Progress as bars on a terminal.

Called by `tasks/training.py` where a person looks on; a log gets the lines that the ranks print instead.
"""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from evergreen.types import Progress


def someone_watches() -> bool:
    """Is there a terminal on the other side?"""
    return sys.stderr.isatty()


class TrainingBars:
    """One bar for the steps, the newest figures beside it; a context manager that is called with each `Progress`."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
        )
        self._title = title
        self._bar: TaskID | None = None
        self._validation = ""

    def __enter__(self) -> "TrainingBars":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, progress: Progress) -> None:
        """Move the bar."""
        if self._bar is None:  # a resumed run starts in the middle
            self._bar = self._bars.add_task(self._title, total=progress.steps, figures="")
        self._bars.update(self._bar, completed=progress.step, figures=self._figures(progress))

    def _figures(self, progress: Progress) -> str:
        if progress.validation_loss is not None:
            self._validation = f"  validation [bold]{progress.validation_loss:.4f}[/]"
        loss = "" if progress.loss is None else f"  loss [bold]{progress.loss:.4f}[/]"
        return (
            f"epoch {progress.epoch}/{progress.epochs}{loss}{self._validation}  {progress.rows_per_second:,.0f} rows/s"
        )
