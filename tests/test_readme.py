"""The README says what is."""

import re
import tomllib
from pathlib import Path

import pytest

from evergreen.spec import parse_spec

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:[a-z_]+/)*[a-zA-Z_]+\.(?:py|toml|yaml|md)|[a-z_/]+/)`", README)))
)
def test_every_file_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", README))))
def test_every_command_it_names_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("image", re.findall(r"!\[.*?\]\((.*?)\)", README))
def test_every_picture_is_there(image: str) -> None:
    assert (ROOT / image).stat().st_size > 10_000


@pytest.mark.parametrize("variable", sorted(set(re.findall(r"EVERGREEN_([A-Z0-9_]+)", README))))
def test_every_variable_it_names_is_a_setting(variable: str) -> None:
    assert f"    {variable.lower()}: " in (ROOT / "evergreen" / "settings.py").read_text()


def test_the_shortest_spec_it_shows_is_valid() -> None:
    shown = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert parse_spec(tomllib.loads(shown[1])).name == "churn"


def test_it_shows_what_the_commands_print() -> None:
    assert "Everything is up." in README
    assert "what served beside the first champion" in README
    assert "_OUTPUT" not in README
