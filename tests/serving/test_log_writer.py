import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import DataError
from evergreen.settings import Settings
from evergreen.types import Cell, Prediction, Window
from evergreen.wiring import Wiring
from serving import log_writer
from serving.carrier import Pace, stored
from serving.log_writer import KEEPS_UP_ROWS, LogWriter, _as_json
from serving.metrics import Metrics
from serving.spool import NotKept, Spool
from tests.serving.serving_factories import NOON, a_prediction, counted, eventually

Write = Callable[[Sequence[bytes]], int]
EARLY = datetime.fromisoformat("1901-01-01")
EMFILE = OSError(errno.EMFILE, "Too many open files")
ROW_BYTES = len(a_prediction(10).model_dump_json()) + 8


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiring]:
    wiring = Wiring(Settings(home=tmp_path_factory.mktemp("home")))
    yield wiring
    wiring.engine.dispose()


def logged(tables: Wiring, model: str) -> set[str]:
    with tables.records() as records:
        frame = records.predictions.frame(model, Window(start=NOON, end=NOON + timedelta(hours=1)), NOON)
    return set(frame["prediction_id"])


@contextmanager
def a_writer(
    write: Write, folder: Path, *, capacity_bytes: int = 512 << 20, **options: float
) -> Iterator[tuple[LogWriter, Metrics]]:
    metrics = Metrics()
    log = LogWriter(write, Spool(folder, capacity_bytes=capacity_bytes), metrics, **options)  # type: ignore[arg-type]
    log.start()
    yield log, metrics
    log.close()


class Gate:
    """A log that is slow until it is opened."""

    def __init__(self) -> None:
        self.opened = Event()
        self.entered = Event()
        self.stored: list[Prediction] = []

    def write(self, rows: Sequence[bytes]) -> int:
        self.entered.set()
        assert self.opened.wait(60)
        self.stored.extend(map(Prediction.model_validate_json, rows))
        return len(rows)


def away(rows: Sequence[bytes]) -> int:
    raise ConnectionError("nobody there")


def test_what_is_recorded_is_in_the_log(tables: Wiring, tmp_path: Path) -> None:
    asked = [a_prediction(number, model="whole") for number in range(2_500)]
    with a_writer(partial(stored, tables), tmp_path) as (log, metrics):
        assert log.record(asked) == 2_500
        assert log.flush()

    assert logged(tables, "whole") == {one.prediction_id for one in asked}
    assert counted(metrics, "log_rows_total", outcome="written") == 2_500


def test_an_answer_is_the_same_after_the_spool(tmp_path: Path) -> None:
    gate = Gate()
    gate.opened.set()
    with a_writer(gate.write, tmp_path) as (log, _):
        log.record([a_prediction(1)])
        assert log.flush()

    assert gate.stored == [a_prediction(1)]


def test_an_answer_given_twice_is_logged_once(tables: Wiring, tmp_path: Path) -> None:
    twice = [a_prediction(1, model="twice"), a_prediction(1, model="twice")]
    with a_writer(partial(stored, tables), tmp_path) as (log, metrics):
        log.record(twice)
        assert log.flush()
        log.record(twice)
        assert log.flush()

    assert counted(metrics, "log_rows_total", outcome="written") == 1
    assert counted(metrics, "log_rows_total", outcome="repeated") == 3


def test_a_full_spool_loses_the_oldest_counted_and_holds_nobody_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    with a_writer(gate.write, tmp_path, capacity_bytes=12 * ROW_BYTES, batch_rows=1) as (log, metrics):
        log.record([a_prediction(0)])
        assert gate.entered.wait(60)
        for number in range(1, 26):
            assert log.record([a_prediction(number)]) == 1  # returns while the log is blocked
        gate.opened.set()
        assert log.flush()

    stored = [one.example_id for one in gate.stored]
    lost = 26 - len(stored)
    assert counted(metrics, "log_rows_total", outcome="lost") == log.lost_rows == lost >= 10
    assert stored == [a_prediction(number).example_id for number in (0, *range(lost + 1, 26))]
    assert "event=evergreen.predictions.lost" in caplog.text


@given(
    features=st.dictionaries(st.text(), st.none() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
    moment=st.datetimes(EARLY, EARLY + timedelta(days=100_000), timezones=st.timezones()),
    probabilities=st.none() | st.dictionaries(st.text(), st.floats(0, 1)),
)
def test_what_the_spool_holds_is_the_prediction(
    features: dict[str, Cell], moment: datetime, probabilities: dict[str, float] | None
) -> None:
    given_fields = vars(a_prediction()) | {"features": features, "probabilities": probabilities, "answered_at": moment}
    prediction = Prediction(**given_fields)

    assert Prediction.model_validate_json(_as_json(prediction)) == prediction
    assert len(_as_json(a_prediction())) == len(a_prediction().model_dump_json())


def test_a_bulk_job_may_wait_for_room(tmp_path: Path) -> None:
    gate = Gate()
    with a_writer(gate.write, tmp_path, capacity_bytes=40 * ROW_BYTES, batch_rows=4) as (log, metrics):
        taken: list[int] = []

        def bulk() -> None:
            for start in range(0, 100, 20):
                some = [a_prediction(n) for n in range(start, start + 20)]
                taken.append(log.record(some, wait_seconds=60))

        job = Thread(target=bulk)
        job.start()
        assert gate.entered.wait(60)
        gate.opened.set()
        job.join(60)
        assert log.flush()

    assert taken == [20] * 5
    assert len(gate.stored) == 100
    assert counted(metrics, "log_rows_total", outcome="lost") == 0


def test_a_bulk_job_that_finds_no_room_pushes_nobody_out(tmp_path: Path) -> None:
    gate = Gate()
    with a_writer(gate.write, tmp_path, capacity_bytes=4 * ROW_BYTES) as (log, metrics):
        log.record([a_prediction(10)])
        assert log.record([a_prediction(n) for n in range(11, 30)], wait_seconds=0.01) == 0
        gate.opened.set()
        assert log.flush()

    assert [one.example_id for one in gate.stored] == [a_prediction(10).example_id]
    assert counted(metrics, "log_rows_total", outcome="lost") == 19


def test_a_log_that_recovers_loses_nothing(tables: Wiring, tmp_path: Path) -> None:
    down = iter([True, True])

    def write(rows: Sequence[bytes]) -> int:
        if next(down, False):
            raise ConnectionError("the database is restarting")
        return stored(tables, rows)

    with a_writer(write, tmp_path, backoff_seconds=0.001) as (log, metrics):
        log.record([a_prediction(number, model="recovers") for number in range(3)])
        assert log.flush()

    assert counted(metrics, "log_failures_total") == 2
    assert counted(metrics, "log_rows_total", outcome="written") == 3
    assert counted(metrics, "log_rows_total", outcome="lost") == 0


def test_what_a_dead_log_did_not_take_is_written_by_the_next_process(tables: Wiring, tmp_path: Path) -> None:
    with a_writer(away, tmp_path, backoff_seconds=0.001) as (log, metrics):
        log.record([a_prediction(number, model="later") for number in range(5)])
        eventually(lambda: counted(metrics, "log_failures_total"))
        assert counted(metrics, "log_queue_rows") == 5
        assert log.close() == 5
        assert log.lost_rows == 0

    with a_writer(partial(stored, tables), tmp_path) as (log, metrics):
        assert log.flush()

    assert len(logged(tables, "later")) == 5
    assert counted(metrics, "log_rows_total", outcome="written") == 5


def test_a_refused_prediction_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    taken: list[int] = []

    def picky(rows: Sequence[bytes]) -> int:
        versions = [Prediction.model_validate_json(row).version for row in rows]
        if 13 in versions:
            raise DataError("13 is not taken")
        taken.extend(versions)
        return len(rows)

    with a_writer(picky, tmp_path) as (log, metrics):
        log.record([a_prediction(1, version=number) for number in range(10, 20)])
        assert log.flush()

    assert taken == [10, 11, 12, 14, 15, 16, 17, 18, 19]
    assert counted(metrics, "log_rows_total", outcome="lost") == 1


def test_the_database_s_own_refusal_is_told_from_its_absence(tables: Wiring, tmp_path: Path) -> None:
    too_large = a_prediction(1, model="overflow", version=2**63)
    with a_writer(partial(stored, tables), tmp_path) as (log, metrics):
        log.record([too_large, a_prediction(2, model="overflow")])
        assert log.flush()

    assert logged(tables, "overflow") == {a_prediction(2, model="overflow").prediction_id}
    assert counted(metrics, "log_rows_total", outcome="lost") == 1


def test_a_disk_that_takes_nothing_is_counted_and_serving_goes_on(
    tables: Wiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(records: Sequence[bytes]) -> int:
        raise NotKept(OSError(errno.ENOSPC, "No space left on device"), 2)

    with a_writer(partial(stored, tables), tmp_path) as (log, metrics):
        monkeypatch.setattr(log._spool, "append", full)
        assert log.record([a_prediction(1, model="full")]) == 0
        monkeypatch.undo()
        assert log.record([a_prediction(2, model="full")]) == 1
        assert log.flush()

    assert counted(metrics, "log_rows_total", outcome="lost") == 1 + 2  # those that had made room for it, too
    assert len(logged(tables, "full")) == 1


def test_a_process_that_can_open_no_file_goes_on_writing_once_it_can(
    tables: Wiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_writer(partial(stored, tables), tmp_path, backoff_seconds=0.001) as (log, metrics):
        read = log._spool.read
        fails = iter([EMFILE, EMFILE])

        def out_of_files(most: int) -> list[bytes]:
            for error in fails:
                raise error
            return read(most)

        monkeypatch.setattr(log._spool, "read", out_of_files)
        log.record([a_prediction(number, model="files") for number in range(3)])
        assert log.flush()

    assert counted(metrics, "log_failures_total") == 2
    assert counted(metrics, "log_rows_total", outcome="written") == 3


def test_what_was_read_is_written_though_counting_it_failed(
    tables: Wiring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with a_writer(partial(stored, tables), tmp_path, backoff_seconds=0.001) as (log, _):
        store, fails = log._store, iter([RuntimeError("once")])

        def stumbles(batch: Sequence[bytes]) -> bool:
            for error in fails:
                raise error
            return store(batch)

        monkeypatch.setattr(log, "_store", stumbles)
        log.record([a_prediction(1, model="stumbles")])
        assert log.flush()

    assert len(logged(tables, "stumbles")) == 1


def test_closing_ends_though_the_spool_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_files(most: int) -> list[bytes]:
        raise EMFILE

    log = LogWriter(away, Spool(tmp_path), Metrics(), backoff_seconds=60.0)
    monkeypatch.setattr(log._spool, "read", out_of_files)
    log.start()
    log.record([a_prediction(1)])
    eventually(lambda: counted(log._metrics, "log_failures_total"))

    assert log.close(timeout_seconds=60.0) == 1
    assert not log._carrier.is_alive()


def test_what_rots_in_the_spool_is_counted_as_lost(tmp_path: Path) -> None:
    spool, metrics = Spool(tmp_path), Metrics()
    log = LogWriter(len, spool, metrics)
    log.record([a_prediction(1), a_prediction(2)])
    (path,) = tmp_path.glob("*.spool")
    size_bytes = path.stat().st_size
    path.write_bytes(b"\0" * size_bytes)

    log.start()
    assert log.flush()
    log.close()

    assert counted(metrics, "log_rows_total", outcome="lost") == log.lost_rows == 2
    assert counted(metrics, "log_torn_bytes_total") == size_bytes


def test_a_bulk_job_pushes_nobody_out_by_the_heads_of_its_records(tmp_path: Path) -> None:
    # Room for the second without the eight bytes that are put in front of each record.
    with a_writer(away, tmp_path, capacity_bytes=2 * ROW_BYTES - 1, backoff_seconds=60.0) as (log, metrics):
        assert log.record([a_prediction(10)]) == 1
        assert log.record([a_prediction(11)], wait_seconds=0.01) == 0

    assert counted(metrics, "log_rows_total", outcome="lost") == 1  # the new one


def test_closing_writes_what_is_spooled(tables: Wiring, tmp_path: Path) -> None:
    with a_writer(partial(stored, tables), tmp_path, batch_rows=7) as (log, metrics):
        log.record([a_prediction(number, model="drained") for number in range(50)])

    assert counted(metrics, "log_rows_total", outcome="written") == 50


def test_closing_does_not_wait_for_ever_and_leaves_the_rest_in_the_spool(tmp_path: Path) -> None:
    gate = Gate()
    metrics = Metrics()
    log = LogWriter(gate.write, Spool(tmp_path), metrics, batch_rows=2)
    log.start()
    log.record([a_prediction(number) for number in range(5)])
    assert gate.entered.wait(60)

    left = log.close(timeout_seconds=0.05)

    assert left == 5
    assert log.record([a_prediction(6)]) == 0
    assert counted(metrics, "log_rows_total", outcome="lost") == 1
    gate.opened.set()


def test_the_depth_of_the_spool_is_shown(tmp_path: Path) -> None:
    with a_writer(away, tmp_path, batch_rows=2, backoff_seconds=0.001) as (log, metrics):
        log.record([a_prediction(number) for number in range(5)])
        eventually(lambda: counted(metrics, "log_queue_rows") == 5)
        assert counted(metrics, "log_spool_bytes") > 5 * 200


def test_the_longer_the_log_does_not_keep_up_the_less_it_can_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    paces: list[Pace] = []
    with a_writer(gate.write, tmp_path, batch_rows=1) as (log, _):
        log.record([a_prediction(number) for number in range(KEEPS_UP_ROWS + 2)])
        assert gate.entered.wait(60)
        for behind_seconds, urgent_seconds in ((60.0, 60.0), (0.0, 60.0), (0.0, 0.0)):
            monkeypatch.setattr(log_writer, "BEHIND_SECONDS", behind_seconds)
            monkeypatch.setattr(log_writer, "URGENT_SECONDS", urgent_seconds)
            paces.append(log.pace)
        monkeypatch.undo()
        gate.opened.set()
        assert log.flush()
        paces.append(log.pace)

    assert paces == ["quiet", "steady", "urgent", "quiet"]


def test_a_log_that_had_nothing_to_do_is_not_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    with a_writer(gate.write, tmp_path, batch_rows=1) as (log, _):
        eventually(lambda: log._idle)
        monkeypatch.setattr(log, "_kept_up_at", log._kept_up_at - 3_600.0)  # an hour ago

        log.record([a_prediction(number) for number in range(KEEPS_UP_ROWS + 2)])
        assert gate.entered.wait(60)
        pace = log.pace
        gate.opened.set()
        assert log.flush()

    assert pace == "quiet"


def test_the_log_cannot_wait_while_somebody_waits_for_it(tmp_path: Path) -> None:
    paces: list[Pace] = []

    def write(rows: Sequence[bytes]) -> int:
        paces.append(log.pace)
        return len(rows)

    with a_writer(write, tmp_path, linger_seconds=0.0) as (log, _):
        log.record([a_prediction(1)])
        eventually(lambda: paces)
        log._linger_seconds = 60.0  # so that the next is written for `flush` alone
        log.record([a_prediction(2)])
        assert log.flush()

    assert paces == ["quiet", "urgent"]
