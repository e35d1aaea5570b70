"""Databases for tests, imported by name: every repository test runs on SQLite and on Postgres."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from evergreen.adapters.database import migrate, open_engine
from evergreen.adapters.tables import Base
from tests.flights_history import features, history, source_folder

__all__ = ["features", "history", "source_folder"]  # fixtures made elsewhere

POSTGRES_URL = os.environ.get("EVERGREEN_TEST_POSTGRES_URL", "postgresql://root@127.0.0.1:5432/test")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A schema of this test session's own, dropped at its end."""
    with _a_schema() as url:
        yield url


@pytest.fixture
def empty_postgres_url() -> Iterator[str]:
    """A schema of this test's own, with nothing in it."""
    with _a_schema() as url:
        yield url


@contextmanager
def _a_schema() -> Iterator[str]:
    admin = open_engine(POSTGRES_URL)
    schema = f"evergreen_{uuid.uuid4().hex[:12]}"
    try:
        with admin.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    except OperationalError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no Postgres at {POSTGRES_URL} (EVERGREEN_TEST_POSTGRES_URL): {error.orig}")
    try:
        yield f"{POSTGRES_URL}?options=-csearch_path%3D{schema}"
    finally:
        with admin.begin() as connection:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
        admin.dispose()


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty, migrated database of either kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'home' / 'evergreen.db'}"
        migrate(url)
        return url
    url = request.getfixturevalue("postgres_url")
    migrate(url)
    engine = open_engine(url)
    with engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    return str(url)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections to the migrated database."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """One session; the test commits where it matters."""
    with Session(engine) as session:
        yield session
