"""Progress on a terminal."""

import io

from rich.console import Console

from evergreen.training.progress.bars import TrainingBars
from evergreen.types import Progress


def test_the_bar_shows_the_step_and_the_newest_losses() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    with TrainingBars("training flight_delay", console) as bars:
        bars(Progress(step=0, steps=40, epoch=0, epochs=2))
        bars(
            Progress(step=20, steps=40, epoch=1, epochs=2, loss=0.4812, validation_loss=0.4712, rows_per_second=31_000)
        )
        bars(Progress(step=30, steps=40, epoch=2, epochs=2, loss=0.4612, rows_per_second=31_500))

    last = [line for line in screen.getvalue().splitlines() if "training flight_delay" in line][-1]
    assert "30/40" in last
    assert "epoch 2/2  loss 0.4612  validation 0.4712  31,500 rows/s" in last
