"""The ids of examples and answers: one for each question, in the order of time."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.ids import is_looked_up, new_example_id, prediction_id

NOON = datetime(2013, 6, 1, 12, tzinfo=timezone(timedelta(hours=-4)))
DAWN = datetime.fromisoformat("1970-01-02")
moments = st.datetimes(DAWN, DAWN + timedelta(days=50_000), timezones=st.just(UTC))


def test_the_same_question_has_the_same_id() -> None:
    assert prediction_id("taxi", "ride-1", NOON, 1) == prediction_id("taxi", "ride-1", NOON.astimezone(UTC), 1)


@pytest.mark.parametrize("example", ["ride-1", "0190163d-8694-739b-aea5-966c26f8ad91"])
def test_another_model_example_moment_version_or_source_of_features_is_another_question(example: str) -> None:
    asked = {
        prediction_id("taxi", example, NOON, 1),
        prediction_id("bike", example, NOON, 1),
        prediction_id("taxi", example[:-1] + "2", NOON, 1),
        prediction_id("taxi", example, NOON + timedelta(microseconds=1), 1),
        prediction_id("taxi", example, NOON, 2),
        prediction_id("taxi", example, NOON, 1, brought=True),
    }

    assert len(asked) == 6


@given(st.text(max_size=50), moments, moments)
def test_an_id_is_a_uuid_and_a_later_moment_has_a_later_one(example: str, one: datetime, other: datetime) -> None:
    earlier, later = sorted((one, other))
    first, second = prediction_id("taxi", example, earlier, 1), prediction_id("taxi", example, later, 1)

    assert (UUID(first).version, str(UUID(first))) == (8, first)
    assert first < second or later - earlier < timedelta(milliseconds=1)


def test_what_the_server_names_is_in_order_and_so_are_its_answers_at_one_moment() -> None:
    names = [new_example_id() for _ in range(100)]
    answers = [prediction_id("taxi", name, NOON, 1) for name in names]

    assert names == sorted(set(names))
    assert [answer[:13] for answer in answers] == [name[:13] for name in names]
    assert len(set(answers)) == 100


@pytest.mark.parametrize(
    "example",
    [
        "zzzzzzzz-8694-739b-aea5-966c26f8ad91",
        "0190163d-8694-439b-aea5-966c26f8ad91",
        "0190163D-8694-739B-AEA5-966C26F8AD91",
    ],
)
def test_what_is_no_uuid_of_version_7_as_rfc_9562_writes_it_begins_with_the_moment(example: str) -> None:
    milliseconds = int(NOON.timestamp() * 1000)

    assert prediction_id("taxi", example, NOON, 1).replace("-", "")[:12] == f"{milliseconds:012x}"


def test_who_brought_the_features_is_told_by_the_id_also_in_a_log_from_before() -> None:
    looked_up, brought = (prediction_id("taxi", "ride-1", NOON, 1, brought=one) for one in (False, True))
    before = uuid5(uuid5(NAMESPACE_URL, "evergreen/predictions"), "taxi\0ride-1\x002013-06-01T16:00:00+00:00\x001")
    brought_before = uuid5(
        uuid5(NAMESPACE_URL, "evergreen/predictions"), "taxi\0ride-1\x002013-06-01T16:00:00+00:00\x001\0brought"
    )

    ids = [looked_up, str(before), brought, str(brought_before), "p000001", ""]

    assert [is_looked_up(one, "taxi", "ride-1", NOON, 1) for one in ids] == [True, True, False, False, False, False]
