"""Those who are told of progress: whatever they do, the training neither waits nor ends."""

import threading
from collections.abc import Sequence

from evergreen.training.progress.listeners import BACKLOG, Listener
from evergreen.types import Progress


def progress(step: int) -> Progress:
    return Progress(step=step, steps=10_000, epoch=1, epochs=2, loss=0.5)


def steps(rows: Sequence[Progress]) -> list[int]:
    return [row.step for row in rows]


def test_everything_arrives_in_order_and_in_batches() -> None:
    calls: list[list[int]] = []
    with Listener("it", lambda rows: calls.append(steps(rows)), print, every_seconds=0.01) as listener:
        for step in range(500):
            listener(progress(step))

    assert [step for call in calls for step in call] == list(range(500))
    assert len(calls) < 100


def test_one_who_is_away_for_a_moment_misses_nothing_and_is_complained_of_once() -> None:
    got: list[int] = []
    complaints: list[str] = []
    failures = iter([True, True, True])

    def tell(rows: Sequence[Progress]) -> None:
        if next(failures, False):
            raise ConnectionError("nobody answers")
        got.extend(steps(rows))

    with Listener("MLflow", tell, complaints.append, every_seconds=0.01) as listener:
        for step in range(5):
            listener(progress(step))

    assert got == [0, 1, 2, 3, 4]
    assert complaints == ["MLflow does not take the progress of this training, trying again: nobody answers"]


def test_one_who_never_answers_holds_up_neither_the_training_nor_its_end() -> None:
    complaints: list[str] = []
    asleep = threading.Event()

    def tell(rows: Sequence[Progress]) -> None:
        asleep.wait()

    with Listener("MLflow", tell, complaints.append, close_seconds=0.2) as listener:
        for step in range(BACKLOG + 500):
            listener(progress(step))
    asleep.set()  # only now, so nobody has waited for an answer

    assert complaints == [f"MLflow did not take all of the progress: {BACKLOG} rows are lost"]


def test_the_oldest_is_dropped_first_while_nobody_answers() -> None:
    got: list[int] = []
    away = threading.Event()
    entered = threading.Event()

    def tell(rows: Sequence[Progress]) -> None:
        entered.set()
        away.wait()
        got.extend(steps(rows))

    with Listener("MLflow", tell, print, every_seconds=0.0) as listener:
        listener(progress(0))
        entered.wait()
        for step in range(1, BACKLOG + 11):
            listener(progress(step))
        away.set()

    assert got[0] == 0
    assert got[1:] == list(range(11, BACKLOG + 11))
