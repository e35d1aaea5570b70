import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from evergreen.ab_test import plan
from evergreen.adapters.releases import AGAIN_AFTER, ReleaseStore
from evergreen.adapters.tables import JournalRow
from evergreen.errors import InvalidTransition, ReleaseConflict, UnknownModel
from evergreen.release import end_test, promote, roll_back, start, start_test
from evergreen.spec import AbTestConfig
from evergreen.types import JournalEntry, Release, TakenBack
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import DAY, HOUR, MAY, a_release

NIGHT = datetime(2026, 7, 4, 3, tzinfo=UTC)


class Wall:
    """A clock on the wall that stands until it is moved."""

    now = NIGHT

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def store(session: Session) -> ReleaseStore:
    return ReleaseStore(session)


def save(store: ReleaseStore, after: Release, actor: str = "ada") -> Release:
    before = after.revision - 1
    return store.save(
        after, expected_revision=before or None, action="start", actor=actor, reason="because", at=after.changed_at
    )


def test_a_model_without_a_release_has_none(store: ReleaseStore) -> None:
    assert store.current("flight_delay") is None
    assert store.journal("flight_delay") == []
    assert store.models() == []


def test_what_was_saved_is_current(store: ReleaseStore) -> None:
    first = start(None, model="flight_delay", version=1, share=0.1, at=MAY)
    save(store, first)
    second = start(first, model="flight_delay", version=2, share=0.1, at=MAY + HOUR)

    saved = save(store, second)

    assert saved == second
    assert store.current("flight_delay") == second


def test_the_journal_tells_every_change_oldest_first(store: ReleaseStore) -> None:
    first = save(store, start(None, model="flight_delay", version=1, share=0.1, at=MAY))
    second = save(store, start(first, model="flight_delay", version=2, share=0.1, at=MAY + DAY))
    third = save(store, promote(second, at=MAY + 2 * DAY))

    journal = store.journal("flight_delay")

    assert [entry.revision for entry in journal] == [1, 2, 3]
    assert [entry.before for entry in journal] == [None, first, second]
    assert [entry.after for entry in journal] == [first, second, third]
    assert [entry.at for entry in journal] == [MAY, MAY + DAY, MAY + 2 * DAY]
    assert (journal[0].actor, journal[0].action, journal[0].reason) == ("ada", "start", "because")


def test_the_journal_knows_when_a_backdated_change_was_written_down(session: Session) -> None:
    wall = Wall()
    store = ReleaseStore(session, wall_clock=wall)
    save(store, a_release(changed_at=MAY))
    wall.now += HOUR
    store.note("flight_delay", action="moved_by_hand", actor="reconciler", reason="x", request="by-hand/1")

    assert [(entry.at, entry.recorded_at) for entry in store.journal("flight_delay")] == [
        (MAY, NIGHT),
        (MAY, NIGHT + HOUR),
    ]


def test_entries_from_before_that_was_kept_have_no_moment(store: ReleaseStore, session: Session) -> None:
    save(store, a_release(champion=2, previous=1))
    back(store)
    session.execute(update(JournalRow).values(recorded_at=None))

    assert [entry.recorded_at for entry in store.journal("flight_delay")] == [None, None]
    with pytest.raises(InvalidTransition, match="no previous champion"):
        back(store)  # nobody knows how long ago the first was


def a_night(session: Session) -> tuple[ReleaseStore, "Wall"]:
    """Champion 2 after 1, with challenger 3 open, and a clock to move."""
    wall = Wall()
    store = ReleaseStore(session, wall_clock=wall)
    save(store, a_release(champion=2, challenger=3, share=0.1, previous=1))
    return store, wall


def back(store: ReleaseStore, **more: Any) -> TakenBack:
    return store.take_back("flight_delay", at=MAY + DAY, actor="command/ada", reason="too many late", **more)


def test_a_roll_back_that_nobody_named_and_that_is_run_again_changes_nothing_and_says_so(session: Session) -> None:
    store, wall = a_night(session)
    first = back(store)
    wall.now += AGAIN_AFTER - timedelta(seconds=1)

    again = back(store)

    assert first.already is None
    assert (first.release.champion, first.release.challenger, first.release.previous) == (2, None, 1)
    assert again.release == first.release
    assert again.already == (
        "version 3 was taken back 599 s ago, at 2026-07-04 03:00:00 UTC by command/ada (too many late). Version 2 is the "
        "champion; nothing was changed. To go one further back: `make rollback MODEL=flight_delay AGAIN=1`, over HTTP the "
        "header `X-Again: true`, in Prefect `roll_out` with `again`."
    )
    assert len(store.journal("flight_delay")) == 2


def test_one_further_back_goes_who_says_so_or_waits(session: Session) -> None:
    store, wall = a_night(session)
    back(store)
    assert back(store, again=True).release.champion == 1

    save(store, start(store.current("flight_delay"), model="flight_delay", version=4, share=0.1, at=MAY))
    save(store, promote(store.current("flight_delay"), at=MAY))  # type: ignore[arg-type]
    save(store, start(store.current("flight_delay"), model="flight_delay", version=5, share=0.1, at=MAY))
    assert back(store).release.champion == 4  # what was started since is another matter
    wall.now += AGAIN_AFTER
    assert back(store).release.champion == 1


def test_a_note_between_two_roll_backs_does_not_make_the_second_another(session: Session) -> None:
    store, _ = a_night(session)
    back(store)
    noted = store.note("flight_delay", action="moved_by_hand", actor="reconciler", reason="x", request="by-hand/1")

    again = back(store)

    assert again.already is not None
    assert again.release == noted


def test_a_roll_back_that_meets_another_is_told_and_not_added_to_it(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        save(ReleaseStore(session), a_release(champion=2, challenger=3, share=0.1, previous=1))

    class Between(ReleaseStore):
        """Somebody else takes back between this one's two reads."""

        def journal(self, model: str) -> list[JournalEntry]:
            with Session(engine) as session, session.begin():
                back(ReleaseStore(session))
            return super().journal(model)

    with Session(engine) as session, pytest.raises(ReleaseConflict, match="roll_back by command/ada"):
        back(Between(session))


def test_models_do_not_share_revisions(store: ReleaseStore) -> None:
    save(store, a_release(model="b"))
    save(store, a_release(model="a"))

    assert store.models() == ["a", "b"]
    assert [entry.revision for entry in store.journal("a")] == [1]


def test_the_later_of_two_changes_learns_who_was_first(store: ReleaseStore) -> None:
    first = save(store, a_release(champion=1, challenger=2, revision=1))
    save(store, promote(first, at=MAY + DAY), actor="grace")

    with pytest.raises(ReleaseConflict, match=r"decided on revision 1, .* at revision 2: start by grace"):
        save(store, roll_back(first, at=MAY + DAY))

    assert store.current("flight_delay") == promote(first, at=MAY + DAY)
    assert len(store.journal("flight_delay")) == 2


def test_the_later_of_two_first_versions_learns_who_was_first(store: ReleaseStore) -> None:
    save(store, a_release(champion=1), actor="grace")

    with pytest.raises(ReleaseConflict, match=r"decided on revision none, .* by grace"):
        save(store, a_release(champion=2))


def test_a_change_of_a_release_that_does_not_exist_conflicts(store: ReleaseStore) -> None:
    with pytest.raises(ReleaseConflict, match="no release"):
        save(store, a_release(revision=5))


@pytest.mark.parametrize("revision", [0, 2, 7])
def test_a_revision_that_does_not_follow_is_refused(store: ReleaseStore, revision: int) -> None:
    with pytest.raises(InvalidTransition, match="it must be 1"):
        store.save(a_release(revision=revision), expected_revision=None, action="start", actor="ada", reason="", at=MAY)


def test_a_change_that_is_rolled_back_leaves_no_journal_row(store: ReleaseStore, session: Session) -> None:
    save(store, a_release())
    session.rollback()

    assert store.current("flight_delay") is None
    assert store.journal("flight_delay") == []


def at_once(number: int, work: Callable[[int], None]) -> None:
    """Run `work(0..number-1)` in threads; their errors are the test's."""
    errors: list[BaseException] = []

    def run(place: int) -> None:
        try:
            work(place)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_of_two_savers_from_the_same_revision_one_wins_and_the_other_is_told(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        first = save(ReleaseStore(session), a_release(champion=1, challenger=2))
    outcomes: dict[str, str] = {}

    def change(place: int) -> None:
        actor = ("ada", "grace")[place]
        try:
            with Session(engine) as session, session.begin():
                save(ReleaseStore(session), promote(first, at=MAY + DAY), actor=actor)
            outcomes[actor] = "won"
        except ReleaseConflict as conflict:
            outcomes[actor] = str(conflict)

    at_once(2, change)

    winner = next(actor for actor, outcome in outcomes.items() if outcome == "won")
    loser = ({"ada", "grace"} - {winner}).pop()
    assert f"by {winner}" in outcomes[loser]


def test_200_promotions_at_once_leave_one_champion_and_a_journal_without_gaps(engine: Engine) -> None:
    """Law 3: 200 promoters, each with a version of its own, read, decide and swap until they win; none is lost or doubled."""
    with Session(engine) as session, session.begin():
        save(ReleaseStore(session), a_release(champion=1))
    conflicts: list[int] = []
    seats = threading.Semaphore(40)  # Postgres takes a hundred connections
    race, racers = threading.Barrier(2), threading.Semaphore(2)

    def decide(current: Release | None, version: int) -> Release:
        if racers.acquire(blocking=False):
            race.wait(60)  # the first two have both read revision 1, so that one of them at least must lose
        return start(current, model="flight_delay", version=version, share=1.0, at=MAY)

    def promote_one(place: int) -> None:
        version = place + 2
        with seats, Session(engine) as session:
            while True:
                try:
                    with session.begin():
                        ReleaseStore(session).change(
                            "flight_delay",
                            lambda current: decide(current, version),
                            action="promote",
                            actor=str(version),
                            reason="",
                            request=str(version),
                        )
                    return
                except ReleaseConflict:
                    conflicts.append(version)

    at_once(200, promote_one)

    assert conflicts

    with Session(engine) as session:
        journal, current = (
            ReleaseStore(session).journal("flight_delay"),
            ReleaseStore(session).current("flight_delay"),
        )
    assert [entry.revision for entry in journal] == list(range(1, 202))
    assert sorted(int(entry.actor) for entry in journal[1:]) == list(range(2, 202))
    assert all(entry.before == earlier.after for earlier, entry in pairwise(journal))
    assert all(entry.after.previous == earlier.after.champion for earlier, entry in pairwise(journal))
    assert current == journal[-1].after


def test_an_ab_test_is_kept_with_its_plan_in_the_row_and_in_the_journal(store: ReleaseStore) -> None:
    first = save(store, a_release(champion=1))
    test = plan(AbTestConfig(entity="customer"), first, 2, MAY)
    running = save(store, start_test(first, version=2, share=0.5, test=test, at=MAY))

    assert store.current("flight_delay") == running
    assert store.journal("flight_delay")[-1].after.test == test
    assert store.restore("flight_delay") is None

    ended = save(store, end_test(running, promoted=True, at=MAY + DAY))
    assert store.current("flight_delay") == ended
    assert ended.test is None


def test_a_note_is_a_revision_that_changes_nothing_and_is_made_once(store: ReleaseStore) -> None:
    first = save(store, a_release(champion=1))

    notes = [
        store.note("flight_delay", action="moved_by_hand", actor="reconciler", reason="x", request="by-hand/1")
        for _ in range(2)
    ]

    assert notes == [first.model_copy(update={"revision": 2})] * 2
    assert [entry.action for entry in store.journal("flight_delay")] == ["start", "moved_by_hand"]
    with pytest.raises(UnknownModel, match="nothing to note"):
        store.note("taxi", action="moved_by_hand", actor="reconciler", reason="x", request="by-hand/1")


def test_a_request_that_was_answered_is_answered_the_same_and_changes_nothing(store: ReleaseStore) -> None:
    save(store, a_release(champion=2, previous=1))

    first = back(store, request="r1")
    assert back(store, request="r1") == first
    save(store, start(first.release, model="flight_delay", version=3, share=0.1, at=MAY + 2 * DAY))
    later = back(store, request="r1")

    assert (first.already, later.release) == (None, first.release)
    assert later.already == (
        "this request was answered before, with revision 2 (champion 1); nothing was changed now. Since then: flight_delay at "
        "revision 3 has champion 1, challenger 3 at 10%, previous None."
    )
    assert [entry.request for entry in store.journal("flight_delay")] == [None, "r1", None]


def test_a_model_without_a_release_cannot_be_taken_back(store: ReleaseStore) -> None:
    with pytest.raises(UnknownModel, match="no release yet"):
        store.take_back("flight_delay", at=MAY, actor="ada", reason="")
