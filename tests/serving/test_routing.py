from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.ab_test import plan
from evergreen.release import start_test
from evergreen.spec import AbTestConfig
from evergreen.types import Release
from serving.routing import keys, point_of, roles

KEYS = st.lists(st.text(max_size=20), max_size=30)
SHARES = st.floats(0.001, 1.0)


def a_release(share: float, champion: int = 1, challenger: int | None = 2, model: str = "flight_delay") -> Release:
    return Release(
        model=model,
        champion=champion,
        challenger=challenger,
        challenger_share=share,
        changed_at=datetime(2013, 4, 1, tzinfo=UTC),
    )


@settings(deadline=None)  # a busy machine is not a fault
@given(keys=KEYS, share=SHARES)
def test_the_same_key_meets_the_same_version_whoever_else_asks(keys: list[str], share: float) -> None:
    release = a_release(share)

    together = roles(release, keys)
    alone = [roles(release, [key])[0] for key in keys]

    assert together == alone


@settings(deadline=None)  # a busy machine is not a fault
@given(keys=KEYS, one=SHARES, other=SHARES)
def test_raising_the_share_only_moves_keys_to_the_challenger(keys: list[str], one: float, other: float) -> None:
    low, high = sorted((one, other))

    before, after = roles(a_release(low), keys), roles(a_release(high), keys)

    assert all(later == "challenger" for earlier, later in zip(before, after, strict=True) if earlier == "challenger")


@settings(deadline=None)  # a busy machine is not a fault
@given(keys=KEYS)
def test_a_share_of_one_takes_every_key(keys: list[str]) -> None:
    assert set(roles(a_release(1.0), keys)) <= {"challenger"}


@settings(deadline=None)  # a busy machine is not a fault
@given(keys=KEYS)
def test_without_a_challenger_the_champion_answers_every_key(keys: list[str]) -> None:
    assert set(roles(a_release(0.0, challenger=None), keys)) <= {"champion"}


def test_the_challenger_gets_its_share_of_many_keys() -> None:
    keys = [f"2013-06-{day:02d}-UA-{flight}-EWR" for day in range(1, 31) for flight in range(700)]

    got = roles(a_release(0.1), keys).count("challenger") / len(keys)

    assert abs(got - 0.1) < 0.01  # four standard errors of 21,000 draws are 0.008


def test_the_next_challenger_meets_other_keys() -> None:
    keys = [str(number) for number in range(2_000)]

    first, second = (roles(a_release(0.5, challenger=number), keys) for number in (2, 3))

    same = sum(one == other for one, other in zip(first, second, strict=True)) / len(keys)
    assert 0.45 < same < 0.55


def a_test(version: int, revision: int = 1, entity: str | None = None) -> Release:
    before = a_release(0.0, challenger=None).model_copy(update={"revision": revision})
    config = AbTestConfig(entity=entity)
    at = before.changed_at
    return start_test(before, version=version, share=0.5, test=plan(config, before, version, at), at=at)


def test_tests_of_the_same_version_one_after_the_other_draw_anew() -> None:
    names = [str(number) for number in range(2_000)]

    first, second = (roles(a_test(2, revision), names) for revision in (1, 5))

    same = sum(one == other for one, other in zip(first, second, strict=True)) / len(names)
    assert 0.45 < same < 0.55


def test_a_test_by_entity_gives_all_rows_of_one_the_same_version() -> None:
    release = a_test(2, entity="customer")
    columns = {"customer": [7, 7.0, "7", None, "8"]}

    named = keys(release, ["a", "b", "c", "d", "e"], columns)

    assert list(named) == ["7", "7", "7", "d", "8"]
    assert len(set(roles(release, named[:3]))) == 1


def test_outside_a_test_by_entity_a_row_is_routed_by_its_own_id() -> None:
    ids = ["a", "b"]

    assert keys(a_test(2), ids, {"customer": [1, 2]}) == ids
    assert keys(a_release(0.5), ids, {"customer": [1, 2]}) == ids
    assert keys(a_test(2, entity="customer"), ids, {}) == ids


@settings(deadline=None)  # a busy machine is not a fault
@given(key=st.text(), challenger=st.integers(1, 10_000))
def test_a_point_is_in_the_half_open_unit_interval(key: str, challenger: int) -> None:
    assert 0.0 <= point_of("flight_delay", challenger, key) < 1.0
