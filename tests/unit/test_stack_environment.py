"""What the stack's processes find in their environment, and which of them are started."""

from pathlib import Path

import pytest

from evergreen.errors import ConfigurationError
from evergreen.settings import Settings
from stack.__main__ import choose
from stack.environment import environment

ALL = ["prefect", "worker", "mlflow", "serving", "herald"]
SERVER = "https://mlflow.example"


def test_what_the_user_has_set_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("EVERGREEN_MLFLOW_UI_URL", "https://models.example")
    env = environment(Settings(home=tmp_path), ALL)

    assert env["MLFLOW_LOGGING_LEVEL"] == "DEBUG"
    assert env["EVERGREEN_MLFLOW_UI_URL"] == "https://models.example"
    assert env["DO_NOT_TRACK"] == "1"


def test_the_stack_talks_to_its_own_prefect_whatever_the_shell_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example/api")
    env = environment(Settings(home=tmp_path, prefect_port=4300), ALL)

    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"


def test_links_lead_to_the_mlflow_that_is_used(tmp_path: Path) -> None:
    ours = environment(Settings(home=tmp_path, mlflow_port=5100), ALL)
    elsewhere = environment(Settings(home=tmp_path, mlflow_tracking_uri=SERVER), ALL)

    assert ours["EVERGREEN_MLFLOW_UI_URL"] == "http://127.0.0.1:5100"
    assert elsewhere["EVERGREEN_MLFLOW_UI_URL"] == SERVER


def test_beside_an_mlflow_server_elsewhere_none_is_started(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, mlflow_tracking_uri=SERVER)

    assert choose([], ALL, Settings(home=tmp_path)) == ALL
    assert choose([], ALL, settings) == [name for name in ALL if name != "mlflow"]
    assert choose(["prefect"], ALL, settings) == ["prefect"]
    with pytest.raises(ConfigurationError, match=f"runs at {SERVER}; leave out one of the two"):
        choose(["mlflow"], ALL, settings)


def test_a_process_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"names \['prefetc'\], the Procfile has"):
        choose(["prefetc"], ALL, Settings(home=tmp_path))
