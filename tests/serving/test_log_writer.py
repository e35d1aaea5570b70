import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from threading import Event, Thread

import pytest

from evergreen.settings import Settings
from evergreen.types import Prediction, Window
from evergreen.wiring import Wiring
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from tests.serving.serving_factories import NOON, a_prediction, counted, eventually

Write = Callable[[Sequence[Prediction]], int]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiring]:
    wiring = Wiring(Settings(home=tmp_path_factory.mktemp("home")))
    yield wiring
    wiring.engine.dispose()


def into(tables: Wiring) -> Write:
    def write(predictions: Sequence[Prediction]) -> int:
        with tables.records() as records:
            return records.predictions.record(predictions)

    return write


@contextmanager
def a_writer(write: Write, **options: float) -> Iterator[tuple[LogWriter, Metrics]]:
    metrics = Metrics()
    log = LogWriter(write, metrics, **options)  # type: ignore[arg-type]
    log.start()
    yield log, metrics
    log.close()


class Gate:
    """A log that is slow until it is opened."""

    def __init__(self) -> None:
        self.opened = Event()
        self.entered = Event()
        self.stored: list[Prediction] = []

    def write(self, predictions: Sequence[Prediction]) -> int:
        self.entered.set()
        assert self.opened.wait(10)
        self.stored.extend(predictions)
        return len(predictions)


def test_what_is_recorded_is_in_the_log(tables: Wiring) -> None:
    asked = [a_prediction(number, model="whole") for number in range(2_500)]
    with a_writer(into(tables)) as (log, metrics):
        assert log.record(asked) == 2_500
        assert log.flush()
    with tables.records() as records:
        frame = records.predictions.frame("whole", Window(start=NOON, end=NOON + timedelta(hours=1)), NOON)

    assert set(frame["prediction_id"]) == {one.prediction_id for one in asked}
    assert counted(metrics, "log_rows_total", outcome="written") == 2_500


def test_an_answer_given_twice_is_logged_once(tables: Wiring) -> None:
    twice = [a_prediction(1, model="twice"), a_prediction(1, model="twice")]
    with a_writer(into(tables)) as (log, metrics):
        log.record(twice)
        assert log.flush()
        log.record(twice)
        assert log.flush()

    assert counted(metrics, "log_rows_total", outcome="written") == 1
    assert counted(metrics, "log_rows_total", outcome="repeated") == 3


def test_a_full_queue_counts_what_it_loses_and_holds_nobody_up() -> None:
    gate = Gate()
    with a_writer(gate.write, capacity_rows=10) as (log, metrics):
        log.record([a_prediction(0)])
        assert gate.entered.wait(10)

        taken = log.record([a_prediction(number) for number in range(1, 26)])  # returns while the log is blocked
        gate.opened.set()
        assert log.flush()
    assert taken == 9
    assert counted(metrics, "log_rows_total", outcome="lost") == 16
    assert counted(metrics, "log_rows_total", outcome="written") == 10
    assert [one.example_id for one in gate.stored] == [a_prediction(number).example_id for number in range(10)]


def test_a_bulk_job_may_wait_for_room() -> None:
    gate = Gate()
    with a_writer(gate.write, capacity_rows=10, batch_rows=4) as (log, metrics):
        taken: list[int] = []
        bulk = Thread(target=lambda: taken.append(log.record([a_prediction(n) for n in range(95)], wait_seconds=10)))
        bulk.start()
        assert gate.entered.wait(10)
        assert counted(metrics, "log_queue_rows") <= 10
        gate.opened.set()
        bulk.join(10)
        assert log.flush()

    assert taken == [95]
    assert len(gate.stored) == 95
    assert counted(metrics, "log_rows_total", outcome="lost") == 0


def test_a_log_that_recovers_loses_nothing(tables: Wiring) -> None:
    down = iter([True, True])

    def write(predictions: Sequence[Prediction]) -> int:
        if next(down, False):
            raise ConnectionError("the database is restarting")
        return into(tables)(predictions)

    with a_writer(write, backoff_seconds=0.001) as (log, metrics):
        log.record([a_prediction(number, model="recovers") for number in range(3)])
        assert log.flush()

    assert counted(metrics, "log_failures_total") == 2
    assert counted(metrics, "log_rows_total", outcome="written") == 3
    assert counted(metrics, "log_rows_total", outcome="lost") == 0


def test_a_dead_log_counts_every_answer_as_lost() -> None:
    def write(predictions: Sequence[Prediction]) -> int:
        raise ConnectionError("nobody there")

    with a_writer(write, backoff_seconds=0.001, attempts=3, batch_rows=2) as (log, metrics):
        log.record([a_prediction(number) for number in range(5)])
        assert log.flush()

    assert counted(metrics, "log_rows_total", outcome="lost") == log.lost_rows == 5
    assert counted(metrics, "log_queue_rows") == 0


def test_closing_writes_what_is_queued(tables: Wiring) -> None:
    with a_writer(into(tables), batch_rows=7) as (log, metrics):
        log.record([a_prediction(number, model="drained") for number in range(50)])

    assert counted(metrics, "log_rows_total", outcome="written") == 50


def test_closing_does_not_wait_for_ever_and_counts_what_is_left() -> None:
    gate = Gate()
    metrics = Metrics()
    log = LogWriter(gate.write, metrics, batch_rows=2)
    log.start()
    log.record([a_prediction(number) for number in range(5)])
    assert gate.entered.wait(10)

    lost = log.close(timeout_seconds=0.05)

    assert lost == 5
    assert log.record([a_prediction(6)]) == 0
    assert counted(metrics, "log_rows_total", outcome="lost") == 6
    gate.opened.set()


def test_the_depth_of_the_queue_is_shown() -> None:
    gate = Gate()
    with a_writer(gate.write, batch_rows=2) as (log, metrics):
        log.record([a_prediction(number) for number in range(5)])
        assert counted(metrics, "log_queue_rows") == 5
        gate.opened.set()
        eventually(lambda: counted(metrics, "log_queue_rows") == 0)
