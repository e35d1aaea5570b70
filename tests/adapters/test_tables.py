from datetime import datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from evergreen.adapters.tables import Base, OutcomeRow, RetrainRequestRow
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import MAY


def test_the_models_and_the_migrations_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)

    assert differences == []


def test_a_moment_in_another_zone_comes_back_in_utc_to_the_microsecond(session: Session) -> None:
    new_york_summer = timezone(timedelta(hours=-4))
    moment = datetime(2013, 7, 4, 9, 30, 15, 123456, tzinfo=new_york_summer)
    session.add(OutcomeRow(model="m", example_id="e", label_timestamp=moment, label=1))
    session.commit()
    session.expire_all()

    stored = session.get_one(OutcomeRow, ("m", "e", moment)).label_timestamp

    assert stored == moment
    assert stored.isoformat() == "2013-07-04T13:30:15.123456+00:00"


def test_a_moment_without_a_zone_is_refused_not_guessed_at(session: Session) -> None:
    naive = datetime(2013, 7, 4)  # noqa: DTZ001
    session.add(OutcomeRow(model="m", example_id="e", label_timestamp=naive, label=1))

    with pytest.raises(StatementError, match="2013-07-04T00:00:00 has no time zone"):
        session.flush()


def test_moments_compare_in_time_order_in_the_database(session: Session) -> None:
    # Text on SQLite sorts right only when every value is written in one zone and one format.
    moments = [MAY, MAY + timedelta(microseconds=1), MAY.astimezone(timezone(timedelta(hours=9))) + timedelta(hours=1)]
    session.add_all(
        OutcomeRow(model="m", example_id=str(place), label_timestamp=moment, label=0)
        for place, moment in enumerate(moments)
    )
    session.commit()

    later = session.query(OutcomeRow.example_id).where(OutcomeRow.label_timestamp > MAY).order_by("label_timestamp")

    assert [row.example_id for row in later] == ["1", "2"]


def a_request_row(owner: str, episode: str, status: str) -> RetrainRequestRow:
    return RetrainRequestRow(
        request_id="r",
        owner=owner,
        model="m",
        cause="drift",
        episode=episode,
        as_of=MAY,
        asked_at=MAY,
        lease_until=MAY,
        status=status,
        reason="",
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [(("e1", "admitted"), ("e2", "admitted")), (("e1", "done"), ("e1", "admitted")), (("e1", "done"), ("e1", "done"))],
)
def test_the_database_itself_refuses_a_second_retrain(
    session: Session, first: tuple[str, str], second: tuple[str, str]
) -> None:
    session.add(a_request_row("a", *first))
    session.flush()
    session.add(a_request_row("b", *second))

    with pytest.raises(IntegrityError):
        session.flush()
