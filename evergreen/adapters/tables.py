"""Evergreen's own tables: what was served, what came of it, who serves now, and who asked for what.

One SQLAlchemy schema for SQLite (embedded) and Postgres (production). Only rows and columns live here; how they are reached
is `database.py`'s, and what may be written when is the business of the repositories beside it.
To add a column: change it here, then `alembic -c deployments/migrations/alembic.ini revision --autogenerate -m WHAT`.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from evergreen.adapters.column_types import Json, UtcDateTime


class Base(DeclarativeBase):
    """Every table of the schema hangs here."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json, str: Text}


class PredictionRow(Base):
    """One answer that was given."""

    __tablename__ = "predictions"
    __table_args__ = (
        Index("ix_predictions_model_event", "model", "event_timestamp"),
        Index("ix_predictions_model_example", "model", "example_id"),
    )

    prediction_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    version: Mapped[int]
    role: Mapped[str]
    example_id: Mapped[str]
    event_timestamp: Mapped[datetime]
    answered_at: Mapped[datetime]
    score: Mapped[float]
    probabilities: Mapped[dict[str, Any] | None]
    features: Mapped[dict[str, Any]]
    stale: Mapped[list[Any]]
    latency_ms: Mapped[float]
    shadow_version: Mapped[int | None]
    shadow_score: Mapped[float | None]
    shadow_latency_ms: Mapped[float | None]
    shadow_probabilities: Mapped[dict[str, Any] | None]
    routed_by: Mapped[str | None]


class OutcomeRow(Base):
    """What came true, by when it became known: a correction is a later row, which an earlier `as_of` does not see."""

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_model_known", "model", "label_timestamp"),)

    model: Mapped[str] = mapped_column(primary_key=True)
    example_id: Mapped[str] = mapped_column(primary_key=True)
    label_timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    label: Mapped[float]


class ReleaseRow(Base):
    """Which version serves what share now; `revision` is what a change is compared and swapped on."""

    __tablename__ = "releases"

    model: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int]
    champion: Mapped[int | None]
    challenger: Mapped[int | None]
    challenger_share: Mapped[float]
    previous: Mapped[int | None]
    changed_at: Mapped[datetime]
    test: Mapped[dict[str, Any] | None]


class JournalRow(Base):
    """Every change of every release. Its key makes a second change from the same revision impossible."""

    __tablename__ = "release_journal"
    __table_args__ = (Index("uq_release_journal_request", "model", "request", unique=True),)

    model: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    action: Mapped[str]
    actor: Mapped[str]
    reason: Mapped[str]
    at: Mapped[datetime]
    before: Mapped[dict[str, Any] | None]
    after: Mapped[dict[str, Any]]
    request: Mapped[str | None]
    recorded_at: Mapped[datetime | None]


class DriftCheckRow(Base):
    """One look of the watch at one window."""

    __tablename__ = "drift_checks"

    model: Mapped[str] = mapped_column(primary_key=True)
    window_end: Mapped[datetime] = mapped_column(primary_key=True)
    window_start: Mapped[datetime]
    as_of: Mapped[datetime]
    version: Mapped[int]
    retrain: Mapped[bool]
    episode: Mapped[str | None]
    alarms: Mapped[list[Any]]
    reasons: Mapped[list[Any]]
    remedy: Mapped[str] = mapped_column(server_default="retrain")
    report_uri: Mapped[str | None]
    drift: Mapped[dict[str, Any] | None]
    performance: Mapped[dict[str, Any]]


class WindowEstimateRow(Base):
    """What was said of a window before its outcomes were in, and, once they are, what came true."""

    __tablename__ = "window_estimates"

    model: Mapped[str] = mapped_column(primary_key=True)
    window_end: Mapped[datetime] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    window_start: Mapped[datetime]
    as_of: Mapped[datetime]
    said: Mapped[dict[str, Any]]
    realised: Mapped[dict[str, Any] | None]
    realised_as_of: Mapped[datetime | None]


class RetrainRequestRow(Base):
    """One ask for a retrain, by one owner. The two partial indexes are law 4, kept by the database itself."""

    __tablename__ = "retrain_requests"
    __table_args__ = (
        Index("uq_retrain_requests_asker", "request_id", "owner", unique=True),
        Index(
            "uq_retrain_requests_running",
            "model",
            unique=True,
            sqlite_where=text("status = 'admitted'"),
            postgresql_where=text("status = 'admitted'"),
        ),
        Index(
            "uq_retrain_requests_episode",
            "model",
            "episode",
            unique=True,
            sqlite_where=text("status IN ('admitted', 'done')"),
            postgresql_where=text("status IN ('admitted', 'done')"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request_id: Mapped[str]
    owner: Mapped[str]
    model: Mapped[str]
    cause: Mapped[str]
    episode: Mapped[str]
    as_of: Mapped[datetime]
    asked_at: Mapped[datetime]
    lease_until: Mapped[datetime]
    status: Mapped[str]
    reason: Mapped[str]
    version: Mapped[int | None]
    remedy: Mapped[str] = mapped_column(server_default="retrain")
    device_seconds: Mapped[float | None]


class TurnstileRow(Base):
    """One row a thing that only one transaction may decide at a time; writing it first takes its lock."""

    __tablename__ = "turnstiles"

    name: Mapped[str] = mapped_column(primary_key=True)
