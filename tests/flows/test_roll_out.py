"""A challenger's ways in and out through the flow `roll_out`, from what serving logs to the release and its journal."""

import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prefect import flow
from prefect.runtime import flow_run

import flows.ab_test
import flows.roll_out
from evergreen.errors import ArtifactError, DataError, InvalidTransition
from evergreen.types import JournalEntry, Release
from evergreen.wiring import Wiring
from flows.ab_test import ab_test
from flows.roll_out import roll_out
from tasks.release import kept_out, roll_back_now, start_canary
from tasks.watch import record_outcomes
from tests.factories import a_prediction
from tests.flow_worlds import living_in
from tests.serving.conftest import register, write_feature_tables
from tests.serving.server_process import released
from tests.serving.serving_factories import NOON

MODEL = "flight_delay"
LATER = NOON + timedelta(hours=5)
FLOW_RUN = r"flow-run/[0-9a-f-]{36}"
IMPATIENT = record_outcomes.with_options(retries=0)


@pytest.fixture(scope="module")
def home_of_three(prefect_api: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 (the champion), 2 and 3 may serve; 4 was refused. Copy it before changing it: see `three`."""
    home = tmp_path_factory.mktemp("three") / "home"
    with living_in(home) as wire:
        write_feature_tables(wire.settings.data)
        for seed in (1, 2, 3):
            register(wire, MODEL, seed=seed)
        register(wire, MODEL, seed=4, passed=False)
        released(wire, 1)
    return home


@pytest.fixture
def three(home_of_three: Path, tmp_path: Path) -> Iterator[Wiring]:
    """This test's own copy of `home_of_three`."""
    shutil.copytree(home_of_three, tmp_path / "home")
    with living_in(tmp_path / "home") as wire:
        yield wire


def journal(wire: Wiring) -> list[JournalEntry]:
    with wire.records() as records:
        return records.releases.journal(MODEL)


def now(wire: Wiring) -> Release:
    with wire.records() as records:
        release = records.releases.current(MODEL)
    assert release is not None
    return release


def fail_beside(wire: Wiring, version: int, rows: int = 200) -> None:
    """What serving logs where the champion answers because the challenger failed."""
    failed = {"shadow_version": version, "shadow_score": None, "shadow_latency_ms": 1.0}
    with wire.records() as records:
        records.predictions.record(
            [
                a_prediction(
                    prediction_id=f"p{number}",
                    example_id=f"p{number}",
                    at=NOON + timedelta(minutes=number),
                    version=1,
                    score=0.3,
                ).model_copy(update=failed)
                for number in range(rows)
            ]
        )


def test_a_challenger_that_fails_on_every_row_goes_back_by_itself_though_no_outcomes_can_be_brought(
    three: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.roll_out, "record_outcomes", IMPATIENT)
    roll_out(MODEL, "start", NOON, version=2)
    fail_beside(three, 2)

    with pytest.raises(DataError, match="flight_outcomes"):  # the run is red, and says what is missing
        roll_out(MODEL, "advance", LATER)

    assert (now(three).champion, now(three).challenger) == (1, None)
    assert three.registry.mirrored(MODEL)[0] == {"champion": 1}
    assert journal(three)[-1].reason == "version 2 failed on 200 of 200 rows, above a share of 0.001"
    assert roll_out(MODEL, "start", NOON, version=3).challenger == 3  # others may come


def test_an_ab_test_too_ends_though_no_outcomes_can_be_brought(three: Wiring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.ab_test, "record_outcomes", IMPATIENT)
    ab_test(MODEL, 2, NOON)
    fail_beside(three, 2)

    with pytest.raises(DataError, match="flight_outcomes"):
        ab_test(MODEL, as_of=LATER)

    assert now(three).challenger is None
    assert "failed on 200 of 200 rows" in journal(three)[-1].reason


def test_every_change_is_journalled_under_the_name_of_its_run(three: Wiring) -> None:
    """A retry of that run then finds it done."""
    roll_out(MODEL, "start", NOON, version=2)
    roll_out(MODEL, "promote", LATER)
    roll_out(MODEL, "rollback", LATER)
    ab_test(MODEL, 3, LATER)

    changes = journal(three)[1:]

    assert [entry.action for entry in changes] == ["start", "promote", "roll_back", "ab_test"]
    for entry in changes:
        assert re.fullmatch(FLOW_RUN, entry.actor)
        assert entry.request == f"{entry.actor}/{entry.action}"
    assert len({entry.actor for entry in changes}) == 4


def test_a_run_that_is_retried_after_its_roll_back_goes_no_further(three: Wiring) -> None:
    roll_out(MODEL, "start", NOON, version=2)
    roll_out(MODEL, "promote", LATER)
    roll_out(MODEL, "start", LATER, version=3)
    runs: list[str] = []

    @flow(retries=1)
    def dies_once() -> Release:
        runs.append(str(flow_run.id))
        release = roll_back_now(three.spec(MODEL), "bad", LATER, again=True)
        if len(runs) == 1:
            raise RuntimeError("killed")
        return release

    assert dies_once().champion == 2
    assert len(set(runs)) == 1
    assert (now(three).champion, now(three).previous) == (2, 1)


def test_another_run_of_a_roll_back_goes_no_further_unless_it_says_so(three: Wiring) -> None:
    roll_out(MODEL, "start", NOON, version=2)
    roll_out(MODEL, "promote", LATER)
    roll_out(MODEL, "start", LATER, version=3)
    back = roll_out(MODEL, "rollback", LATER)

    assert roll_out(MODEL, "rollback", LATER) == back
    assert (back.champion, back.challenger) == (2, None)
    assert roll_out(MODEL, "rollback", LATER, again=True).champion == 1


def test_what_may_not_start_is_told_to_whoever_starts_it(three: Wiring) -> None:
    with pytest.raises(InvalidTransition, match="Give its number as `version`"):
        roll_out(MODEL, "start", NOON)
    with pytest.raises(ArtifactError, match="did not pass its gate"):
        roll_out(MODEL, "start", NOON, version=4)

    roll_out(MODEL, "start", NOON, version=3)
    with pytest.raises(InvalidTransition, match="version 3, which was judged on newer rows, is being rolled out"):
        roll_out(MODEL, "start", NOON, version=2)
    assert roll_out(MODEL, "start", NOON, version=3) == now(three)  # it is
    assert [entry.action for entry in journal(three)] == ["test", "start"]


def test_a_version_that_a_guardrail_took_back_comes_in_again_only_when_a_person_says_so(
    three: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.roll_out, "record_outcomes", IMPATIENT)
    roll_out(MODEL, "start", NOON, version=2)
    fail_beside(three, 2)
    with pytest.raises(DataError):
        roll_out(MODEL, "advance", LATER)
    back = now(three)

    @flow
    def as_retrain_does() -> Release:
        return start_canary(three.spec(MODEL), 2, "passed the gate", LATER)

    assert as_retrain_does() == back == now(three)
    assert "has been taken back or replaced since" in kept_out(back, 2)[0]
    with pytest.raises(InvalidTransition, match="version=2 and again=true"):
        roll_out(MODEL, "start", LATER, version=2)
    assert roll_out(MODEL, "start", LATER, version=2, again=True).challenger == 2


def test_a_late_approval_leaves_the_newer_challenger_alone(three: Wiring) -> None:
    running = roll_out(MODEL, "start", NOON, version=3)

    @flow
    def as_retrain_does() -> Release:
        return start_canary(three.spec(MODEL), 2, "passed the gate", LATER)

    assert as_retrain_does() == running
    assert "run `roll_out` with action=start and version=2" in kept_out(running, 2)[0]
