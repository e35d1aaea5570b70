"""January and February 2013, ingested, built and registered once for all tests of a session."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.adapters.feast import Features
from evergreen.settings import Settings
from feature_repo.flights import pipeline, source

END = datetime(2013, 2, 28, 6, tzinfo=UTC)


@pytest.fixture(scope="session")
def source_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in which the source files are parsed already."""
    data = tmp_path_factory.mktemp("source") / "data"
    source.known_between(data, "planes", None, END)
    return data


def with_source(data: Path, source_folder: Path) -> Path:
    """`data`, reading the source files that are parsed already."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "source").symlink_to(source_folder / "source")
    return data


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory, source_folder: Path) -> Settings:
    """Raw and feature tables up to `END`, made in one pass. Tests read them and change nothing."""
    settings = Settings(home=tmp_path_factory.mktemp("history"))
    with_source(settings.data, source_folder)
    pipeline.ingest(settings.data, END)
    pipeline.build(settings.data, END)
    return settings


@pytest.fixture(scope="session")
def features(history: Settings) -> Features:
    """The feature store over `history`, applied; nothing is materialized."""
    features = Features(history)
    features.apply()
    return features
