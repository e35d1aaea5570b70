import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, get_args

import httpx
import pytest

from evergreen.errors import ConfigurationError
from evergreen.settings import ROOT, Settings
from evergreen.wiring import Wiring
from serving import limits
from serving.app import create_app
from serving.keys import ApiKey, ApiKeys, Scope, require_keys_beyond_loopback
from tests.serving.server_process import released, served
from tests.serving.serving_factories import NOON, a_flight

ASKED = {"rows": a_flight(), "as_of": NOON.isoformat()}
REPORTED = {"outcomes": [{"example_id": "guarded", "label": 1, "label_timestamp": NOON.isoformat()}]}


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    return ApiKeys(tmp_path / "home" / "api_keys.json")


def test_a_key_is_known_by_its_holder_until_it_is_revoked(keys: ApiKeys) -> None:
    key = keys.make("web", ["predict"])
    other = keys.make("labels", ["outcomes"])

    holder = keys.holder(key)
    assert holder is not None
    assert (holder.name, holder.scopes) == ("web", ("predict",))
    keys.revoke("web")
    assert keys.holder(key) is None
    assert keys.holder(other) is not None


@pytest.mark.parametrize("given", ["", "evergreen_", "evergreen_" + "A" * 43, "é\ud800"])
def test_what_is_no_key_has_no_holder(keys: ApiKeys, given: str) -> None:
    keys.make("web", ["predict"])

    assert keys.holder(given) is None


def test_the_file_does_not_hold_the_key_and_only_its_owner_reads_it(keys: ApiKeys, tmp_path: Path) -> None:
    key = keys.make("web", ["predict"])

    path = tmp_path / "home" / "api_keys.json"
    assert key.removeprefix("evergreen_") not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_another_process_sees_a_change_at_once(keys: ApiKeys, tmp_path: Path) -> None:
    serving = ApiKeys(tmp_path / "home" / "api_keys.json")
    assert serving.all() == []

    key = keys.make("web", ["predict"])
    assert serving.holder(key) is not None
    keys.revoke("web")
    assert serving.holder(key) is None


def test_a_name_is_taken_once_and_an_unknown_one_is_said(keys: ApiKeys) -> None:
    keys.make("web", ["predict"])

    with pytest.raises(ConfigurationError, match="named 'web' already"):
        keys.make("web", ["admin"])
    with pytest.raises(ConfigurationError, match=r"no key 'wbe'; there are \['web'\]"):
        keys.revoke("wbe")


def test_a_file_that_is_no_list_of_keys_lets_nobody_in(keys: ApiKeys, tmp_path: Path) -> None:
    key = keys.make("web", ["predict"])
    (tmp_path / "home" / "api_keys.json").write_text("[")

    with pytest.raises(ConfigurationError, match="cannot be read"):
        keys.holder(key)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "evergreen_pasted"}, "key 0, sha256, string_pattern_mismatch"),
        ({"evergreen_pasted": 1}, "key 0, extra_forbidden"),
        ({"scopes": ["evergreen_pasted"]}, "key 0, scopes, literal_error"),
    ],
)
def test_what_a_faulty_file_holds_is_not_told(keys: ApiKeys, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    keys.make("web", ["predict"])
    path = tmp_path / "home" / "api_keys.json"
    (written,) = json.loads(path.read_text())
    path.write_text(json.dumps([written | change]))

    with pytest.raises(ConfigurationError, match=f"cannot be read: {says}. Correct the file") as caught:
        keys.holder("no key")
    assert not [part for part in ("pasted", "web", written["sha256"]) if part in str(caught.value)]


def test_a_key_that_is_revoked_while_another_is_made_does_not_come_back(
    keys: ApiKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.make("web", ["predict"])
    path, write = tmp_path / "home" / "api_keys.json", ApiKeys._write
    writes, is_revoked = Event(), Event()

    def slowly(self: ApiKeys, those: list[ApiKey]) -> None:
        if len(those) == 2:
            writes.set()
            is_revoked.wait(0.5)
        write(self, those)

    monkeypatch.setattr(ApiKeys, "_write", slowly)
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(ApiKeys(path).make, "labels", ["outcomes"])
        assert writes.wait(10)
        keys.revoke("web")
        is_revoked.set()
        made.result(10)

    assert [one.name for one in keys.all()] == ["labels"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_on_this_machine_no_key_is_needed(host: str) -> None:
    require_keys_beyond_loopback(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "127.0.0.1.example.org"])
def test_beyond_it_serving_does_not_start_without_keys(host: str) -> None:
    with pytest.raises(ConfigurationError, match="EVERGREEN_REQUIRE_API_KEYS=true"):
        require_keys_beyond_loopback(Settings(host=host))
    require_keys_beyond_loopback(Settings(host=host, require_api_keys=True))


def test_keys_are_made_and_revoked_by_a_command(tmp_path: Path) -> None:
    def command(*words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "EVERGREEN_HOME": str(tmp_path)}
        run = [sys.executable, "-m", "serving.keys", *words]
        return subprocess.run(run, env=environment, cwd=ROOT, capture_output=True, text=True)

    key = command("make", "web", "--scope", "predict", "--scope", "outcomes").stdout.strip()
    assert ApiKeys(tmp_path / "api_keys.json").holder(key) is not None
    assert command("list").stdout.split()[:2] == ["web", "predict,outcomes"]
    assert command("revoke", "web").returncode == 0
    again = command("revoke", "web")
    assert (again.returncode, again.stderr) == (1, "there is no key 'web'; there are []\n")


@pytest.fixture(scope="module")
def guarded(installation: Wiring) -> Iterator[tuple[httpx.Client, dict[str, str]]]:
    settings = installation.settings.model_copy(update={"require_api_keys": True, "max_body_bytes": 20_000})
    keys = ApiKeys(settings.keys_file)
    made = {scope: keys.make(f"only-{scope}", [scope]) for scope in get_args(Scope)}
    released(installation, 1)
    with served(create_app(settings)) as client:
        yield client, made
    settings.keys_file.unlink()


ROUTES: list[tuple[str, str, str, Any]] = [
    ("predict", "POST", "/predict/flight_delay", ASKED),
    ("outcomes", "POST", "/outcomes/flight_delay", REPORTED),
    ("watch", "GET", "/models", None),
    ("watch", "GET", "/metrics", None),
    ("watch", "GET", "/metrics/monitoring", None),
    ("admin", "POST", "/models/nobody/rollback", None),
]


@pytest.mark.parametrize(("scope", "method", "path", "body"), ROUTES)
def test_a_route_answers_the_keys_of_its_scope_alone(
    guarded: tuple[httpx.Client, dict[str, str]], scope: str, method: str, path: str, body: Any
) -> None:
    client, keys = guarded

    def status(headers: dict[str, str]) -> int:
        return client.request(method, path, json=body, headers=headers).status_code

    assert status({}) == 401
    assert status({"authorization": "Bearer evergreen_guessed"}) == 401
    assert status({"authorization": f"Basic {keys[scope]}"}) == 401
    may = {scope, "admin"} if scope == "watch" else {scope}
    for of, key in keys.items():
        # Of the model nobody there is nothing to take back.
        assert status({"authorization": f"Bearer {key}"}) == ((404 if "nobody" in path else 200) if of in may else 403)


def test_on_a_laptop_too_a_release_is_taken_back_with_a_key_alone(installation: Wiring) -> None:
    keys = ApiKeys(installation.settings.keys_file)
    released(installation, 1)
    released(installation, 2)
    try:
        with served(create_app(installation.settings)) as client:
            without = client.post("/models/flight_delay/rollback")
            key = keys.make("ada", ["admin"])
            wrong = client.post("/models/flight_delay/rollback", headers={"Authorization": f"Bearer {key}x"})
            nothing = client.post("/models/flight_delay/rollback", headers={"Authorization": f"Bearer {key}"})
            asked = client.get("/models")
    finally:
        keys.revoke("ada")

    assert (without.status_code, wrong.status_code) == (401, 401)
    assert "python -m serving.keys make NAME --scope admin" in without.json()["detail"]
    assert (nothing.status_code, "no previous champion" in nothing.json()["detail"]) == (409, True)
    assert asked.status_code == 200  # everything else is open here


def test_probes_need_no_key(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, _ = guarded

    assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_no_key_is_written_to_the_log_or_an_answer(
    guarded: tuple[httpx.Client, dict[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    client, keys = guarded
    key = keys["outcomes"]
    with caplog.at_level(logging.DEBUG):
        headers = {"authorization": f"Bearer {key}"}
        answers = [
            client.post("/predict/flight_delay", json=ASKED, headers=headers),
            client.post("/outcomes/flight_delay", json={"outcomes": 1}, headers=headers),
            client.post("/outcomes/nobody", json=REPORTED, headers=headers),
        ]

    assert [answer.status_code for answer in answers] == [403, 422, 404]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not any(key in line for line in [*ours, *(answer.text for answer in answers)])


def test_a_body_that_is_too_long_is_refused(guarded: tuple[httpx.Client, dict[str, str]]) -> None:
    client, keys = guarded
    headers = {"authorization": f"Bearer {keys['predict']}"}

    answer = client.post("/predict/flight_delay", json={"rows": [a_flight()] * 500}, headers=headers)

    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("the body is longer than 20,000 bytes")


def test_a_body_that_never_comes_is_given_up(installation: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PART_SECONDS", 0.05)
    app = create_app(installation.settings)
    with served(app) as client, socket.create_connection((client.base_url.host, client.base_url.port or 0)) as slow:
        slow.sendall(b"POST /predict/flight_delay HTTP/1.1\r\nhost: x\r\ncontent-length: 90\r\n\r\n{")
        slow.settimeout(10)
        said = slow.recv(4096)

    assert said.startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("required", [True, False])
def test_the_openapi_page_says_where_a_key_is_needed(tmp_path: Path, required: bool) -> None:
    paths = create_app(Settings(home=tmp_path, require_api_keys=required)).openapi()["paths"]

    told = {path: one.get("security") for path, methods in paths.items() for one in methods.values()}
    key: list[dict[str, list[str]]] = [{"ApiKey": []}] if required else [{}, {"ApiKey": []}]
    assert {path for path, security in told.items() if security == key} == {
        "/predict/{model_name}", "/outcomes/{model_name}", "/models", "/metrics", "/metrics/monitoring"
    }  # fmt: skip
    assert {path for path, security in told.items() if security == [{"AdminKey": []}]} == {
        "/models/{model_name}/rollback"
    }
    assert {path for path, security in told.items() if security is None} == {"/health", "/ready"}
