"""What serving says when it will not answer, over HTTP: come again, and nothing that is nobody's business."""

import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from evergreen.settings import Settings
from evergreen.wiring import Wiring
from serving.app import create_app, serve
from serving.runtime import Runtime
from tests.serving.server_process import released, served
from tests.serving.serving_factories import NOON, a_flight, counted

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def serving(installation: Wiring, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, Runtime]]:
    """`flight_delay` with room for ten rows, and `strict`, which has no patience."""
    folder = tmp_path_factory.mktemp("models")
    for model, rules in (("flight_delay", "queue_rows = 10"), ("strict", "timeout_seconds = 0.000001")):
        released(installation, 1, model)
        written = (installation.settings.models_dir / f"{model}.toml").read_text()
        (folder / f"{model}.toml").write_text(f"{written.split('[serve]')[0]}[serve]\n{rules}\n")
    app = create_app(installation.settings.model_copy(update={"models_dir": folder}))
    with served(app) as client:
        yield client, app.state.runtime


def asked_at_once(client: httpx.Client, model: str, questions: int, rows: int) -> list[httpx.Response]:
    def ask(number: int) -> httpx.Response:
        body = {
            "rows": [a_flight(n, example_id=f"{number}-{n}") for n in range(rows)],
            "as_of": NOON.isoformat(),
        }
        return client.post(f"/predict/{model}", json=body)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, range(questions)))


def test_a_full_queue_sheds_what_comes_and_says_when_to_come_again(serving: tuple[httpx.Client, Runtime]) -> None:
    client, runtime = serving

    answers = asked_at_once(client, "flight_delay", 120, rows=5)

    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.headers["retry-after"] == "1"
            assert "[serve].queue_rows is 10; ask again later" in answer.json()["detail"]
        else:
            assert len(answer.json()["predictions"]) == 5
    assert counted(runtime.metrics, "shed_total", model="flight_delay", why="full") == statuses[503]
    assert asked_at_once(client, "flight_delay", 1, rows=5)[0].status_code == 200
    assert counted(runtime.metrics, "queue_rows", model="flight_delay") == 0


def test_what_waited_too_long_is_refused_the_same_way(serving: tuple[httpx.Client, Runtime]) -> None:
    client, runtime = serving

    (answer,) = asked_at_once(client, "strict", 1, rows=1)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "did not get to it in time" in answer.json()["detail"]
    assert counted(runtime.metrics, "shed_total", model="strict", why="late") == 1
    assert counted(runtime.metrics, "errors_total", model="strict", error="Overloaded") == 1


def test_a_database_s_password_is_in_no_log_when_it_does_not_answer(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = f"postgresql://evergreen:{PASSWORD}@127.0.0.1:{port}/evergreen"

    with pytest.raises(SystemExit):
        serve(Settings(home=tmp_path, database_url=nobody, serving_port=port))

    said = capfd.readouterr()
    told = said.out + said.err + caplog.text
    assert "refused" in told
    assert PASSWORD not in told
