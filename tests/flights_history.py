"""January and February 2013, ingested, built and registered once for all tests of a session.

Each test module imports the fixtures it uses; to pytest those are fixtures of that module's own, so what is made once a
session is kept by the functions under them.
"""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest

from evergreen.adapters.feast import Features
from evergreen.settings import Settings
from feature_repo.flights import pipeline, source

END = datetime(2013, 2, 28, 6, tzinfo=UTC)


def with_source(data: Path, source_folder: Path) -> Path:
    """`data`, reading the source files that are parsed already."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "source").symlink_to(source_folder / "source")
    return data


@cache
def _source_folder(folder: Path) -> Path:
    data = folder / "flights-source" / "data"
    source.known_between(data, "planes", None, END)
    return data


@cache
def _history(folder: Path) -> Settings:
    settings = Settings(home=folder / "flights-history")
    with_source(settings.data, _source_folder(folder))
    pipeline.ingest(settings.data, END)
    pipeline.build(settings.data, END)
    return settings


@cache
def _features(folder: Path) -> Features:
    features = Features(_history(folder))
    features.apply()
    return features


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the source files are parsed already."""
    return _source_folder(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Raw and feature tables up to `END`, made in one pass. Tests read them and change nothing."""
    return _history(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Features:
    """The feature store over `history`, applied; nothing is materialized."""
    return _features(tmp_path_factory.getbasetemp())
