"""A roll-back over HTTP or on the command line that somebody asks for twice."""

import sys

import pytest

import stack.rollback
from evergreen.types import Release
from evergreen.wiring import Wiring
from serving.app import create_app
from serving.keys import ApiKeys
from tests.serving.server_process import served
from tests.serving.serving_factories import NOON

MODEL = "flight_delay"


def test_a_call_or_a_command_that_is_run_again_goes_no_further_back_unless_it_says_so(
    installation: Wiring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever saw a timeout asks again; both ways, the second through the other."""
    keys = ApiKeys(installation.settings.keys_file)
    headers = {"Authorization": f"Bearer {keys.make('ada', ['admin'])}"}
    monkeypatch.setattr(stack.rollback, "wiring", lambda: installation)

    def command(*more: str) -> str:
        monkeypatch.setattr(sys, "argv", ["rollback", MODEL, *more])
        assert stack.rollback.main() == 0
        return capsys.readouterr().out

    try:
        with served(create_app(installation.settings)) as client:
            two_back(installation)
            first = client.post(f"/models/{MODEL}/rollback", headers=headers)
            again = client.post(f"/models/{MODEL}/rollback", headers=headers)
            told = command()
            further = client.post(f"/models/{MODEL}/rollback", headers=headers | {"X-Again": "true"})
            two_back(installation)
            command()
            over_http = client.post(f"/models/{MODEL}/rollback", headers=headers)
            command("--again")
    finally:
        keys.revoke("ada")

    assert (first.json()["champion"], first.json()["challenger"], first.json()["already"]) == (2, None, None)
    assert again.status_code == 200
    assert again.json() == first.json() | {"already": again.json()["already"]}
    assert "version 1 was taken back" in again.json()["already"]
    assert "by http/ada (asked for over HTTP). Version 2 is the champion; nothing was changed" in told
    assert f"make rollback MODEL={MODEL} AGAIN=1" in told
    assert (further.json()["champion"], further.json()["already"]) == (1, None)
    assert over_http.json()["champion"] == 2
    with installation.records() as records:
        now = records.releases.current(MODEL)
    assert now is not None
    assert now.champion == 1


def test_an_empty_name_of_a_request_is_none_and_goes_no_further_back(
    installation: Wiring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ApiKeys(installation.settings.keys_file)
    unnamed = {"Authorization": f"Bearer {keys.make('ada', ['admin'])}", "Idempotency-Key": ""}
    monkeypatch.setattr(stack.rollback, "wiring", lambda: installation)
    monkeypatch.setattr(sys, "argv", ["rollback", MODEL, "--request", ""])
    two_back(installation)
    try:
        with served(create_app(installation.settings)) as client:
            first, again = (client.post(f"/models/{MODEL}/rollback", headers=unnamed).json() for _ in range(2))
    finally:
        keys.revoke("ada")

    assert stack.rollback.main() == 0
    assert (first["champion"], first["already"]) == (2, None)
    assert again == first | {"already": again["already"]}
    for told in again["already"], capsys.readouterr().out:
        assert "Version 2 is the champion; nothing was changed" in told


def two_back(wire: Wiring) -> None:
    """Champion 2 after 1, with 1 open as challenger once more: two roll-backs away from 1."""
    with wire.records() as records:
        before = records.releases.current(MODEL)
        revision = 0 if before is None else before.revision
        after = Release(
            model=MODEL,
            revision=revision + 1,
            champion=2,
            challenger=1,
            challenger_share=0.1,
            previous=1,
            changed_at=NOON,
        )
        records.releases.save(
            after, expected_revision=revision or None, action="test", actor="a test", reason="", at=NOON
        )
