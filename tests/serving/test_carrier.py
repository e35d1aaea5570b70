"""The process that writes the log: steps back, is begun again where it was killed, and ends with its parent."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pandas as pd
import psutil
import pytest

from evergreen.errors import DataError
from evergreen.settings import Settings
from evergreen.types import Window
from evergreen.wiring import Wiring
from serving.carrier import NICE, SLICE_SECONDS, Carrier, Pace, stored
from tests.processes import is_alive
from tests.serving.serving_factories import NOON, a_prediction, eventually

A_SERVER = """
import sys
from pathlib import Path
from evergreen.settings import Settings
from serving.carrier import Carrier
carrier = Carrier(Settings(home=Path(sys.argv[1])), lambda: "quiet")
carrier.write([])
print(carrier.process_id, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[Wiring]:
    wiring = Wiring(Settings(home=tmp_path))
    yield wiring
    wiring.engine.dispose()


def a_row(number: int) -> bytes:
    return a_prediction(number).model_dump_json().encode()


def slices_ns(process_id: int) -> list[int]:
    """What each thread runs for at a time; nothing where the system does not tell."""
    tasks = Path(f"/proc/{process_id}/task").glob("*/sched")
    return [int(found) for task in tasks for found in re.findall(r"se\.slice\s*:\s*(\d+)", task.read_text())]


def process_of(carrier: Carrier) -> psutil.Process:
    assert carrier.process_id is not None
    return psutil.Process(carrier.process_id)


@pytest.mark.parametrize("pace", NICE)
def test_it_stores_what_it_is_given_once(tables: Wiring, pace: Pace) -> None:
    with closing(Carrier(tables.settings, lambda: pace)) as carrier:
        assert carrier.process_id is None  # nothing was asked of it
        assert carrier.write([a_row(1), a_row(2)]) == 2
        assert carrier.write([a_row(2), a_row(3)]) == 1
        process = process_of(carrier)

    assert not process.is_running()
    assert stored(tables, [a_row(1), a_row(2), a_row(3)]) == 0


@pytest.mark.parametrize("row", [b"", b"{", b"[1]", b'{"surplus": 1}', b'{"model": "flight_delay"}'])
def test_what_is_no_prediction_is_refused(tables: Wiring, row: bytes) -> None:
    with pytest.raises(DataError, match="cannot be understood"):
        stored(tables, [a_row(1), row])


def test_a_prediction_of_a_release_that_lacked_a_field_is_understood(tables: Wiring) -> None:
    now, before = a_row(1), json.loads(a_row(2))
    del before["routed_by"], before["shadow_version"]

    assert stored(tables, [now, json.dumps(before).encode()]) == 2
    with tables.records() as records:
        logged = records.predictions.frame("flight_delay", Window(start=NOON, end=NOON + timedelta(days=1)), NOON)
    assert set(logged["prediction_id"]) == {a_prediction(number).prediction_id for number in (1, 2)}
    same = logged.drop(columns=["prediction_id", "example_id"])
    pd.testing.assert_series_equal(same.iloc[0], same.iloc[1], check_names=False)


def test_what_is_no_prediction_is_told_from_a_database_that_is_away(tmp_path: Path) -> None:
    with closing(Carrier(Settings(home=tmp_path), lambda: "quiet")) as carrier:
        with pytest.raises(DataError, match="cannot be understood"):
            carrier.write([a_row(1), b'{"surplus": 1}'])
        assert carrier.write([a_row(1)]) == 1
    nowhere = "postgresql://127.0.0.1:1/nowhere"
    with (
        closing(Carrier(Settings(home=tmp_path, database_url=nowhere), lambda: "quiet")) as carrier,
        pytest.raises(OSError, match="does not answer"),
    ):
        carrier.write([a_row(1)])


def test_one_that_was_killed_is_begun_again(tables: Wiring) -> None:
    with closing(Carrier(tables.settings, lambda: "quiet")) as carrier:
        assert carrier.write([a_row(1)]) == 1
        process_of(carrier).kill()
        with pytest.raises(OSError, match="ended with -9"):
            carrier.write([a_row(2)])
        assert carrier.write([a_row(2)]) == 1


def test_signals_that_are_meant_for_its_server_do_not_end_it(tables: Wiring) -> None:
    with closing(Carrier(tables.settings, lambda: "quiet")) as carrier:
        carrier.write([a_row(1)])
        for number in (signal.SIGINT, signal.SIGTERM):
            process_of(carrier).send_signal(number)
        assert carrier.write([a_row(2)]) == 1


def test_it_ends_at_once_though_the_log_does_not_answer(tables: Wiring) -> None:
    carrier = Carrier(tables.settings, lambda: "quiet")
    carrier.write([a_row(1)])
    process, failures = process_of(carrier), []
    process.suspend()

    def write() -> None:
        try:
            carrier.write([a_row(2)])
        except OSError as error:
            failures.append(error)

    asking = Thread(target=write)
    asking.start()
    eventually(carrier._asking.locked)
    carrier.close()
    asking.join(60)

    assert not process.is_running()
    assert len(failures) == 1
    with pytest.raises(OSError, match="was ended"):
        carrier.write([a_row(3)])


def test_it_ends_with_a_server_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", A_SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        carrier = psutil.Process(int(server.stdout.readline()))
        assert is_alive(carrier)
        server.kill()

    eventually(lambda: not is_alive(carrier))


def test_one_that_was_started_waits_for_its_first_batch(tables: Wiring) -> None:
    with closing(Carrier(tables.settings, lambda: "quiet")) as carrier:
        carrier.start()
        begun = carrier.process_id
        assert carrier.write([a_row(1)]) == 1
        assert carrier.process_id == begun is not None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority of each thread")
@pytest.mark.parametrize("pace", NICE)
def test_it_steps_back_for_answers_as_far_as_the_log_can_wait(tables: Wiring, pace: Pace) -> None:
    with closing(Carrier(tables.settings, lambda: pace)) as carrier:
        carrier.write([a_row(1)])
        nice = {os.getpriority(os.PRIO_PROCESS, one.id) for one in process_of(carrier).threads()}

    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert max(nice) == max(NICE[pace], own)


@pytest.mark.skipif(not slices_ns(os.getpid()), reason="this system has no slices of a length that is asked for")
def test_whoever_gets_ready_to_run_need_not_wait_for_it(tables: Wiring) -> None:
    with closing(Carrier(tables.settings, lambda: "quiet")) as carrier:
        carrier.write([a_row(1)])
        assert max(slices_ns(process_of(carrier).pid)) == SLICE_SECONDS * 1e9
