import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evergreen.adapters.admissions import Admissions
from evergreen.adapters.drift_checks import DriftChecks
from evergreen.errors import InvalidTransition, UnknownModel
from evergreen.types import Alarm, Cause, Remedy, RetrainRequest
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import (
    DAY,
    MAY,
    a_drift_report,
    a_performance_report,
    a_retrain_decision,
    a_window,
)


class Clock:
    """Wall time that moves when a test says so."""

    def __init__(self) -> None:
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.at

    def pass_seconds(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admissions(session: Session, clock: Clock) -> Admissions:
    return Admissions(session, clock)


def ask(
    admissions: Admissions,
    request_id: str,
    *,
    episode: str = "spring",
    cause: Cause = Cause.DECAY,
    as_of: datetime = MAY,
    owner: str | None = None,
    model: str = "flight_delay",
    blocked: str | None = None,
    max_in_30_days: int | None = None,
    max_device_hours: float | None = None,
    remedy: Remedy = Remedy.RETRAIN,
) -> RetrainRequest:
    return admissions.ask(
        request_id=request_id,
        model=model,
        cause=cause,
        episode=episode,
        as_of=as_of,
        cooldown_days=14,
        lease_seconds=30,
        owner=owner,
        blocked=blocked,
        max_in_30_days=max_in_30_days,
        max_device_hours_in_30_days=max_device_hours,
        remedy=remedy,
    )


def retrain(admissions: Admissions, request_id: str, *, version: int = 1, **given: object) -> RetrainRequest:
    """Ask and do it."""
    ask(admissions, request_id, **given)  # type: ignore[arg-type]
    return admissions.finish(request_id, status="done", version=version, reason=f"version {version} passed")


def test_the_first_ask_is_admitted_and_says_why(admissions: Admissions) -> None:
    request = ask(admissions, "r1")

    assert request.status == "admitted"
    assert request.reason == "first ask for episode spring to be admitted, because of decay"


def test_a_second_ask_for_a_running_episode_is_suppressed_and_names_the_holder(admissions: Admissions) -> None:
    ask(admissions, "r1")

    second = ask(admissions, "r2")

    assert second.status == "suppressed"
    assert "episode spring is being retrained by request r1" in second.reason


def test_an_ask_for_an_episode_that_had_its_retrain_is_suppressed_even_by_a_person(admissions: Admissions) -> None:
    retrain(admissions, "r1", version=7)

    second = ask(admissions, "r2", cause=Cause.PERSON, as_of=MAY + 90 * DAY)

    assert second.status == "suppressed"
    assert second.reason == "episode spring had its retrain: request r1, version 7 passed"


def test_only_one_retrain_of_a_model_runs_at_a_time_whoever_asks(admissions: Admissions) -> None:
    ask(admissions, "r1")

    by_person = ask(admissions, "r2", episode="person:r2", cause=Cause.PERSON)

    assert by_person.status == "suppressed"
    assert "another episode, spring," in by_person.reason


def test_models_do_not_wait_for_each_other(admissions: Admissions) -> None:
    ask(admissions, "r1")

    assert ask(admissions, "r2", model="other").status == "admitted"


def test_the_same_request_again_goes_on_where_it_was(admissions: Admissions, clock: Clock) -> None:
    ask(admissions, "r1")
    clock.pass_seconds(20)
    resumed = ask(admissions, "r1")
    clock.pass_seconds(20)  # past the first lease, within the renewed one
    other = ask(admissions, "r2")

    assert resumed.status == "admitted"
    assert resumed.reason.startswith("resumed by r1")
    assert other.status == "suppressed"
    assert [request.request_id for request in admissions.recent("flight_delay")] == ["r2", "r1"]


def test_the_same_request_by_another_living_owner_does_not_start_twice(admissions: Admissions) -> None:
    # One event can fire one automation twice: two runs with one payload.
    first = ask(admissions, "event-1", owner="run-a")
    second = ask(admissions, "event-1", owner="run-b")

    assert (first.status, second.status) == ("admitted", "suppressed")
    assert "run-a" in second.reason


def test_a_request_that_is_done_stays_done(admissions: Admissions) -> None:
    retrain(admissions, "r1", version=3)

    again = ask(admissions, "r1")
    by_another = ask(admissions, "r1", owner="run-b")

    assert (again.status, again.version) == ("done", 3)
    assert by_another == again


def test_an_episode_is_taken_over_once_its_holders_lease_ran_out(admissions: Admissions, clock: Clock) -> None:
    ask(admissions, "r1")
    clock.pass_seconds(29.9)
    too_early = ask(admissions, "r2")
    clock.pass_seconds(0.1)
    in_time = ask(admissions, "r3")

    assert too_early.status == "suppressed"
    assert in_time.status == "admitted"
    assert in_time.reason == "took episode spring over from r1, whose lease ran out"
    lost = next(request for request in admissions.recent("flight_delay") if request.request_id == "r1")
    assert (lost.status, lost.reason) == ("failed", "its lease ran out; ended by request r3 of r3")


def test_a_holder_that_lost_its_admission_cannot_renew_or_finish_it(admissions: Admissions, clock: Clock) -> None:
    ask(admissions, "r1")
    clock.pass_seconds(31)
    ask(admissions, "r2")

    assert not admissions.renew("r1", lease_seconds=30)
    with pytest.raises(InvalidTransition, match=r"r1' is failed, not admitted, .* r2"):
        admissions.finish("r1", status="done", version=1, reason="late")
    assert admissions.finish("r2", status="done", version=1).status == "done"


def test_a_renewed_lease_holds_others_off(admissions: Admissions, clock: Clock) -> None:
    ask(admissions, "r1")
    for _ in range(5):
        clock.pass_seconds(20)
        assert admissions.renew("r1", lease_seconds=30)

    assert ask(admissions, "r2").status == "suppressed"


def test_a_dead_retrain_of_another_episode_does_not_block_the_model_for_ever(
    admissions: Admissions, clock: Clock
) -> None:
    ask(admissions, "r1", episode="spring")
    clock.pass_seconds(31)

    assert ask(admissions, "r2", episode="summer").status == "admitted"
    assert not admissions.renew("r1", lease_seconds=30)


def test_a_failed_retrain_opens_its_episode_to_the_next_ask(admissions: Admissions) -> None:
    ask(admissions, "r1")
    admissions.finish("r1", status="failed", reason="the disk is full")

    assert ask(admissions, "r2").status == "admitted"


def test_a_failed_request_asked_again_is_admitted_again_and_keeps_its_history(admissions: Admissions) -> None:
    ask(admissions, "r1")
    admissions.finish("r1", status="failed", reason="the disk is full")

    again = ask(admissions, "r1")

    assert again.status == "admitted"
    assert again.reason.endswith("(before: failed: the disk is full)")


def test_an_alarm_within_the_cooldown_of_the_last_one_is_suppressed_with_its_figures(admissions: Admissions) -> None:
    retrain(admissions, "r1", as_of=MAY)

    soon = ask(admissions, "r2", episode="summer", as_of=MAY + 13.5 * DAY)

    assert soon.status == "suppressed"
    assert "13.5 days before this one, and [retrain].cooldown_days asks for 14" in soon.reason


def test_the_cooldown_ends_on_its_last_day(admissions: Admissions) -> None:
    retrain(admissions, "r1", as_of=MAY)

    assert ask(admissions, "r2", episode="summer", as_of=MAY + 14 * DAY).status == "admitted"


@pytest.mark.parametrize("cause", [Cause.PERSON, Cause.SCHEDULE, Cause.BOOTSTRAP])
def test_persons_and_schedules_neither_wait_for_the_cooldown_nor_start_it(admissions: Admissions, cause: Cause) -> None:
    retrain(admissions, "r1", as_of=MAY)
    retrain(admissions, "r2", episode="asked", cause=cause, as_of=MAY + 13 * DAY)

    after_alarm_only = ask(admissions, "r3", episode="summer", as_of=MAY + 14 * DAY)

    assert [request.status for request in admissions.recent("flight_delay")] == ["admitted", "done", "done"]
    assert after_alarm_only.status == "admitted"


def test_a_failed_retrain_cools_nothing_down(admissions: Admissions) -> None:
    ask(admissions, "r1")
    admissions.finish("r1", status="failed", reason="the disk is full")

    assert ask(admissions, "r2", episode="summer", as_of=MAY + DAY).status == "admitted"


@pytest.mark.parametrize("cause", [Cause.DRIFT, Cause.DECAY, Cause.AGE, Cause.SCHEDULE])
def test_nothing_automatic_starts_while_something_is_open_and_the_reason_is_on_record(
    admissions: Admissions, cause: Cause
) -> None:
    request = ask(admissions, "r1", cause=cause, blocked="the data is broken: temperature")

    assert (request.status, request.reason) == ("suppressed", "the data is broken: temperature")
    assert admissions.recent("flight_delay") == [request]


def test_a_person_may_go_ahead_where_something_is_open(admissions: Admissions) -> None:
    assert ask(admissions, "r1", cause=Cause.PERSON, blocked="the data is broken").status == "admitted"


def test_a_month_has_a_budget_and_it_comes_back(admissions: Admissions) -> None:
    retrain(admissions, "r1", episode="one", cause=Cause.PERSON)
    within, after = MAY + 20 * DAY, MAY + 31 * DAY

    refused = ask(admissions, "r2", episode="two", as_of=within, max_in_30_days=1)
    later = ask(admissions, "r3", episode="three", as_of=after, max_in_30_days=1)

    assert (refused.status, later.status) == ("suppressed", "admitted")
    assert refused.reason == ("1 retrains were done in the 30 days before, and [retrain].max_in_30_days allows 1")


def test_a_cheap_remedy_neither_waits_for_the_cooldown_nor_begins_one(admissions: Admissions) -> None:
    retrain(admissions, "r1", episode="one")
    cheap = retrain(admissions, "r2", episode="two", as_of=MAY + DAY, remedy=Remedy.RECALIBRATE, max_in_30_days=1)
    soon = ask(admissions, "r3", episode="three", as_of=MAY + 2 * DAY)
    after = ask(admissions, "r4", episode="four", as_of=MAY + 14 * DAY)  # 13 days after the recalibration

    assert (cheap.status, cheap.remedy) == ("done", Remedy.RECALIBRATE)
    assert soon.status == "suppressed"
    assert after.status == "admitted"


def test_what_remedies_used_is_budgeted_by_the_month_and_a_person_may_go_on(admissions: Admissions) -> None:
    ask(admissions, "r1", episode="one", remedy=Remedy.FINE_TUNE)
    admissions.finish("r1", status="done", version=2, device_seconds=5_400)

    def fine_tune(request_id: str, day: int, cause: Cause = Cause.SCHEDULE, hours: float = 1.5) -> RetrainRequest:
        return ask(
            admissions, request_id, episode=request_id, cause=cause, as_of=MAY + day * DAY,
            remedy=Remedy.FINE_TUNE, max_device_hours=hours,
        )  # fmt: skip

    refused = fine_tune("r2", 7)
    assert refused.status == "suppressed"
    assert refused.reason == (
        "remedies used 1.50 device hours in the 30 days before, and [retrain].max_device_hours_in_30_days allows 1.5"
    )
    by_hand = fine_tune("r3", 7, Cause.PERSON)
    admissions.finish("r3", status="failed", reason="no")
    more_allowed = fine_tune("r4", 7, hours=2.0)
    admissions.finish("r4", status="failed", reason="no")
    a_month_later = fine_tune("r5", 31)
    assert (by_hand.status, more_allowed.status, a_month_later.status) == ("admitted",) * 3


def test_what_a_killed_remedy_had_used_by_its_last_renewal_counts(admissions: Admissions, clock: Clock) -> None:
    ask(admissions, "r1", episode="one", remedy=Remedy.FINE_TUNE)
    assert admissions.renew("r1", lease_seconds=30, device_seconds=5_400)
    assert admissions.renew("r1", lease_seconds=30)
    clock.pass_seconds(31)

    refused = ask(
        admissions, "r2", episode="two", cause=Cause.SCHEDULE, as_of=MAY + 7 * DAY,
        remedy=Remedy.FINE_TUNE, max_device_hours=1.5,
    )  # fmt: skip

    assert refused.status == "suppressed"
    assert refused.reason.startswith("remedies used 1.50 device hours in the 30 days before")
    assert admissions.finish("r1", status="failed", reason="no").device_seconds == 5_400


def test_an_old_event_replayed_after_a_later_retrain_starts_nothing(admissions: Admissions) -> None:
    retrain(admissions, "r1", as_of=MAY)

    assert ask(admissions, "r2", episode="winter", as_of=MAY - 30 * DAY).status == "suppressed"


def test_a_suppressed_request_asked_again_is_judged_again(admissions: Admissions) -> None:
    ask(admissions, "r1", cause=Cause.PERSON, episode="person:r1")
    waiting = ask(admissions, "r2", cause=Cause.PERSON, episode="person:r2")
    admissions.finish("r1", status="done", version=1)
    again = ask(admissions, "r2", cause=Cause.PERSON, episode="person:r2")

    assert (waiting.status, again.status) == ("suppressed", "admitted")
    assert "(before: suppressed: another episode" in again.reason


def test_finishing_twice_is_finishing_once(admissions: Admissions) -> None:
    first = retrain(admissions, "r1", version=4)

    assert admissions.finish("r1", status="done", version=4, reason="again") == first


def test_a_request_nobody_made_cannot_be_finished_or_renewed(admissions: Admissions) -> None:
    assert not admissions.renew("nobody", lease_seconds=30)
    with pytest.raises(UnknownModel, match="nobody"):
        admissions.finish("nobody", status="done")


def test_twenty_asks_for_one_episode_at_once_admit_one_and_record_why_not_the_others(engine: Engine) -> None:
    """Law 4."""
    answers = ask_at_once(engine, [(f"r{number}", f"run-{number}") for number in range(20)])

    assert sorted(answer.status for answer in answers) == ["admitted"] + ["suppressed"] * 19
    holder = next(answer.request_id for answer in answers if answer.status == "admitted")
    with Session(engine) as session:
        on_record = Admissions(session).recent("flight_delay")
    assert len(on_record) == 20
    assert all(f"request {holder}" in request.reason for request in on_record if request.status == "suppressed")


def test_twenty_copies_of_one_event_at_once_start_one_retrain(engine: Engine) -> None:
    """Law 4, where the copies share their request's id."""
    answers = ask_at_once(engine, [("event-1", f"run-{number}") for number in range(20)])

    assert sorted(answer.status for answer in answers) == ["admitted"] + ["suppressed"] * 19


def test_twenty_takeovers_at_once_admit_one(engine: Engine) -> None:
    """Law 4, after the holder died."""
    long_ago = Clock()
    with Session(engine) as session, session.begin():
        ask(Admissions(session, long_ago), "dead")

    answers = ask_at_once(engine, [(f"r{number}", f"run-{number}") for number in range(20)])

    assert sorted(answer.status for answer in answers) == ["admitted"] + ["suppressed"] * 19


def ask_at_once(engine: Engine, askers: list[tuple[str, str]]) -> list[RetrainRequest]:
    barrier = threading.Barrier(len(askers))
    answers: list[RetrainRequest] = []
    clock = Clock()
    clock.pass_seconds(3_600)

    def run(request_id: str, owner: str) -> None:
        barrier.wait()
        with Session(engine) as session, session.begin():
            answer = ask(Admissions(session, clock), request_id, owner=owner)
        answers.append(answer)

    threads = [threading.Thread(target=run, args=asker) for asker in askers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_checks_come_back_newest_first_and_only_those_before(session: Session) -> None:
    checks = DriftChecks(session)
    windows = [a_window(MAY + week * 7 * DAY) for week in range(4)]
    for window in windows:
        checks.record(
            a_retrain_decision(as_of=window.end), a_drift_report(window=window), a_performance_report(window=window)
        )

    history = checks.history("flight_delay", before=windows[3].end, limit=2)

    assert [check.window for check in history] == [windows[2], windows[1]]
    assert checks.history("other", before=windows[3].end, limit=2) == []


def test_a_check_keeps_its_alarms_its_version_and_its_episode(session: Session) -> None:
    checks = DriftChecks(session)
    decision = a_retrain_decision()
    performance = a_performance_report(version=3)
    checks.record(decision, None, performance)
    session.commit()
    session.expire_all()

    check = checks.history("flight_delay", before=MAY + 365 * DAY, limit=1)[0]

    assert check.alarms == decision.alarms
    assert (check.version, check.retrain, check.episode) == (3, True, decision.episode)


def test_looking_at_a_window_again_replaces_what_was_seen(session: Session) -> None:
    checks = DriftChecks(session)
    checks.record(a_retrain_decision(retrain=False), None, a_performance_report(labelled=0))
    checks.record(a_retrain_decision(), a_drift_report(), a_performance_report())

    history = checks.history("flight_delay", before=MAY + 365 * DAY, limit=10)

    assert [check.retrain for check in history] == [True]


def test_a_fault_is_open_until_a_later_look_says_nothing_of_it(session: Session) -> None:
    checks = DriftChecks(session)
    alarm = Alarm(trigger=Cause.FAULT, figure=40.0, rule="unit: 17", reason="temperature: its mean jumps")
    first, second = a_performance_report(window=a_window()), a_performance_report(window=a_window(days=14))
    assert first.window.end < second.window.end
    checks.record(a_retrain_decision(retrain=False, alarms=(alarm,)), None, first)

    broken = checks.open_faults("flight_delay", first.window.end + DAY)
    checks.record(a_retrain_decision(retrain=False), None, second)

    assert broken == ("temperature: its mean jumps",)
    assert checks.open_faults("flight_delay", second.window.end) == ()
    assert checks.open_faults("flight_delay", second.window.start - DAY) == ()
