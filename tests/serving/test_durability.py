"""Nothing that was answered is missing from the log: the database goes away, the process is killed."""

import time
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit

import pytest

from evergreen.settings import Settings
from evergreen.types import Window
from evergreen.wiring import Wiring
from serving.carrier import stored
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.spool import Spool
from tests.databases import empty_postgres_url
from tests.serving.server_process import Link, Load, a_server, released
from tests.serving.serving_factories import NOON, eventually

MiB = 1 << 20


def logged(wiring: Wiring) -> set[str]:
    with wiring.records() as records:
        frame = records.predictions.frame(
            "flight_delay", Window(start=NOON, end=NOON + timedelta(hours=1)), NOON + timedelta(days=1)
        )
    return set(frame["prediction_id"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_without_its_database_serving_goes_on_in_flat_memory_and_nothing_is_lost(
    installation: Wiring, empty_postgres_url: str, seconds: int
) -> None:
    tables = Wiring(Settings(home=installation.settings.home, database_url=empty_postgres_url))
    released(tables, 1)
    address = urlsplit(empty_postgres_url)
    link = Link(address.hostname or "127.0.0.1", address.port or 5432)
    through = empty_postgres_url.replace(address.netloc.rpartition("@")[2], f"127.0.0.1:{link.port}")
    try:
        with a_server(installation, EVERGREEN_DATABASE_URL=through) as server:
            with Load(str(server.client.base_url), f"outage{seconds}") as load:
                eventually(lambda: len(load.answered) > 300 and logged(tables), seconds=60)
                before = server.resident_bytes  # the log's own process included, which its first rows began
                link.cut()
                away = len(load.answered)
                time.sleep(seconds)  # the length of the outage is what is tested
                grown = server.resident_bytes - before
                away = len(load.answered) - away
                link.mend()
            assert load.failures == []
            assert away > 20 * seconds
            eventually(lambda: "evergreen_log_queue_rows 0.0" in server.client.get("/metrics").text, seconds=120)
            assert logged(tables) == set(load.answered)
            assert 'evergreen_log_rows_total{outcome="lost"} 0.0' in server.client.get("/metrics").text
            assert grown < 24 * MiB
    finally:
        link.close()
        tables.engine.dispose()


def test_every_answer_of_a_killed_process_is_in_the_log_afterwards(installation: Wiring) -> None:
    released(installation, 1)
    with a_server(installation) as server, Load(str(server.client.base_url), "killed") as load:
        eventually(lambda: len(load.answered) > 300, seconds=60)
        server.kill()
        eventually(lambda: load.failures)

    next_process = LogWriter(partial(stored, installation), Spool.claim(installation.settings.spool), Metrics())
    next_process.start()
    assert next_process.flush()
    next_process.close()
    assert len(load.answered) > 300
    assert set(load.answered) <= logged(installation)


@pytest.mark.slow
def test_workers_share_a_socket_their_figures_and_a_killed_one_s_spool(installation: Wiring) -> None:
    released(installation, 1)
    with a_server(installation, EVERGREEN_SERVING_WORKERS="2") as server:
        workers = server.workers
        with Load(str(server.client.base_url), "workers") as load:
            eventually(lambda: len(load.answered) > 300, seconds=60)
        assert load.failures == []
        page = server.client.get("/metrics").text
        assert (
            f'evergreen_rows_total{{model="flight_delay",role="champion",version="1"}} {len(load.answered)}.0' in page
        )

        with Load(str(server.client.base_url), "one-dies") as again:
            eventually(lambda: len(again.answered) > 300, seconds=60)
            workers[0].kill()
            eventually(lambda: len(server.workers) == 2 and workers[0] not in server.workers, seconds=90)
        assert len(again.failures) <= again.threads  # those that were being answered
        eventually(lambda: {*load.answered, *again.answered} <= logged(installation), seconds=90)

        orphans = server.workers
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(orphan.is_running() for orphan in orphans), seconds=60)
