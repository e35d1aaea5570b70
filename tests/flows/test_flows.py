"""The flows end to end, on real flights, with a real Prefect server, Feast, torch, MLflow and Evidently."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact

from evergreen.errors import (
    DataError,
    FeatureServiceMissing,
    InvalidTransition,
    ReleaseConflict,
    TrainingFailed,
    UnknownModel,
)
from evergreen.training.run.launch import train
from evergreen.types import Cause, Outcome, ReleaseDecision, Window
from evergreen.wiring import Wiring
from flows.materialize import materialize
from flows.reconcile import reconcile
from flows.retrain import retrain
from flows.roll_out import roll_out
from flows.score_batch import score_batch
from flows.watch import watch
from tasks.gate import evaluate_artifact
from tasks.release import EVENT, apply_decision, kept_out
from tests.factories import a_trained_model
from tests.flow_worlds import FIRST, living_in
from tests.training_factories import a_job, a_training_set

MODEL = "flight_delay"
WEEK = timedelta(days=7)


def artifacts_of(flow_run_id: str) -> dict[str, Artifact]:
    with get_client(sync_client=True) as client:
        chosen = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(flow_run_id)]))
        return {artifact.key or "": artifact for artifact in client.read_artifacts(artifact_filter=chosen)}


def test_the_first_retrain_makes_a_champion_and_shows_its_gate(first_champion: tuple[Path, Outcome]) -> None:
    outcome = first_champion[1]
    assert outcome.verdict == "passed", outcome.reasons
    assert outcome.release is not None
    assert outcome.version is not None
    assert outcome.release.champion == outcome.version.version == 1
    shown = artifacts_of(outcome.request.request_id)
    assert "enough_rows" in str(shown["gate"].data)
    assert "Where not to believe it" in str(shown["model-card"].data)
    assert "share" in str(shown["attribution-table"].data)
    assert "[gate].baseline_margin unset: decides nothing" in str(shown["gate"].data)
    assert outcome.version.run_id in str(shown["mlflow-run"].data)
    assert "/artifacts/evidence" in str(shown["evidently-report"].data)
    assert "version 1 is the champion" in str(shown["reasons"].data)
    assert shown["training-flight-delay"].data == 100.0
    assert "data:image/png;base64," in str(shown["training-curve"].data)
    assert "data:image/png;base64," in str(shown["calibration"].data)
    assert "CPU seconds" in str(shown["training"].data)
    with living_in(first_champion[0]) as wire:
        run = wire.registry.client.get_run(outcome.version.run_id)
        assert run.info.status == "FINISHED"
        assert len(wire.registry.client.search_runs([run.info.experiment_id])) == 1
    assert {"live/loss", "live/rows_per_second", "live/memory_bytes", "cost/device_seconds"} <= set(run.data.metrics)


@pytest.mark.slow
def test_a_second_ask_in_an_episode_is_suppressed_and_on_record(world: Wiring) -> None:
    as_of = FIRST + timedelta(days=3)
    first = retrain(MODEL, as_of, Cause.DECAY, "one")
    second = retrain(MODEL, as_of, Cause.DECAY, "one")
    assert first.verdict in ("passed", "refused")
    assert second.verdict == "suppressed"
    assert "episode one had its retrain" in second.reasons[0]
    with world.records() as records:
        assert {r.status for r in records.admissions.recent(MODEL)} == {"done", "suppressed"}


def test_the_same_knowledge_trains_the_same_version(world: Wiring, first_champion: tuple[Path, Outcome]) -> None:
    again = retrain(MODEL, FIRST, Cause.PERSON)
    assert again.version is not None
    assert again.version.version == 1
    assert first_champion[1].version is not None
    assert again.version.artifact == first_champion[1].version.artifact
    used = world.registry.candidate(again.version).cost
    assert used is not None
    assert first_champion[1].request.device_seconds == pytest.approx(used.device_seconds)
    assert again.request.device_seconds is None, "it found the model, so it used nothing"


@pytest.mark.slow
def test_what_a_training_used_before_it_diverged_counts(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("learning_rate = 4e-3", "learning_rate = 1e30")

    with pytest.raises(TrainingFailed, match="diverged"):
        retrain(MODEL, FIRST + timedelta(days=1), Cause.PERSON, "one")

    with world.records() as records:
        [asked] = [request for request in records.admissions.recent(MODEL) if request.episode == "one"]
    assert asked.status == "failed"
    assert (asked.device_seconds or 0) > 1.0


@pytest.mark.slow
def test_weeks_are_scored_once_and_watched_and_an_outage_holds_retrains_back(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("max_calibration_gap = 0.08", "max_calibration_gap = 0.0001")
    blizzard = FIRST + WEEK + timedelta(days=1)  # on 9 February nothing flew, and with nothing flying feeds are empty
    after = blizzard + WEEK
    materialize(MODEL, blizzard)
    answered = score_batch(FIRST, blizzard, MODEL)
    assert answered > 5_000
    assert score_batch(FIRST, blizzard, MODEL) == 0

    held_back = watch(MODEL, blizzard)
    refused = retrain(MODEL, blizzard, Cause.SCHEDULE)
    materialize(MODEL, after)
    answered += score_batch(blizzard, after, MODEL)
    decision = watch(MODEL, after)

    assert held_back is not None
    assert not held_back.retrain
    assert {alarm.trigger for alarm in held_back.alarms} == {Cause.FAULT, Cause.DECAY}
    assert refused.verdict == "suppressed"
    assert "the data is broken" in refused.reasons[0]
    assert decision is not None
    assert decision.retrain, decision.reasons
    assert decision.episode is not None
    assert decision.alarms[0].trigger is Cause.DECAY
    with world.records() as records:
        frame = records.predictions.frame(MODEL, Window(start=FIRST, end=after), after)
        checks = records.checks.history(MODEL, after, 10)
        said = records.estimates.history(MODEL, 10)
        newest = records.watched.records(MODEL, 1)[0].performance
    assert len(frame) == answered
    assert frame["label"].notna().mean() > 0.9
    assert [check.episode for check in checks] == [decision.episode, None]
    assert [one.window.end for one in said] == [check.window.end for check in checks]
    assert abs(said[0].errors["log_loss"]) < 0.3
    assert newest.intervals["log_loss"].figure == pytest.approx(newest.scores.loss if newest.scores else None)
    assert {part.name for part in newest.slices} >= {"origin=EWR", "origin=JFK", "origin=LGA"}
    page = (world.settings.home / "reports" / f"{MODEL}-monitoring.html").read_text()
    assert "tr class=faulty" in page
    assert f"{said[0].errors['log_loss']:+.4f}" in page
    assert "origin=JFK" in page


def test_a_watch_without_answers_says_so(world: Wiring) -> None:
    assert watch(MODEL, FIRST) is None


def test_a_challenger_is_promoted_on_evidence_and_rolled_back_in_one_call(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("margin = 0.01", "margin = 0.5")  # whether the newer one is better is not what is tested here
    rewrite_spec("max_slice_loss = 0.05", "max_slice_loss = 5.0")
    rewrite_spec("min_rows = 50", 'min_rows = 50\nproof = "guardrails"')  # proof takes a week; here are two days
    start = FIRST + timedelta(days=2)
    outcome = retrain(MODEL, start, Cause.SCHEDULE)
    assert outcome.release is not None, outcome.reasons
    assert (outcome.release.champion, outcome.release.challenger) == (1, 2)

    held = roll_out(MODEL, "advance", start + timedelta(hours=1))
    assert held.challenger == 2

    end = start + timedelta(days=2)
    materialize(MODEL, end)
    score_batch(start, end, MODEL)
    promoted = roll_out(MODEL, "advance", end)
    assert (promoted.champion, promoted.previous) == (2, 1)

    back = roll_out(MODEL, "rollback", end)
    assert (back.champion, back.challenger) == (1, None)
    assert roll_out(MODEL, "rollback", end) == back  # whoever did not hear of it asks again
    with world.records() as records:
        assert [entry.action for entry in records.releases.journal(MODEL)] == ["start", "start", "promote", "roll_back"]
    with pytest.raises(InvalidTransition, match="no previous champion"):
        roll_out(MODEL, "rollback", end, again=True)

    assert reconcile() == ()
    world.registry._client.set_registered_model_alias(MODEL, "champion", "2")  # a hand in MLflow
    assert {finding.kind for finding in reconcile()} == {"moved_by_hand"}
    aliases, told = world.registry.mirrored(MODEL)
    assert aliases == {"champion": 1}
    assert told is not None
    assert told.revision == back.revision + 1  # the hand is in the journal


@pytest.mark.slow
def test_a_refused_candidate_is_registered_with_its_reasons(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("max_log_loss = 0.69", "max_log_loss = 0.01")
    outcome = retrain(MODEL, FIRST + timedelta(days=1), Cause.PERSON)
    assert outcome.verdict == "refused"
    assert outcome.version is not None
    assert world.registry.version(MODEL, outcome.version.version).reasons == outcome.reasons
    with world.records() as records:
        release = records.releases.current(MODEL)
    assert release is not None
    assert (release.champion, release.challenger) == (1, None)

    rewrite_spec("max_log_loss = 0.01", "max_log_loss = 0.69")
    rewrite_spec("margin = 0.01", "margin = 0.5")
    rewrite_spec("max_slice_loss = 0.05", "max_slice_loss = 5.0")
    again = retrain(MODEL, FIRST + timedelta(days=1), Cause.PERSON)  # the same artifact, judged by other rules
    assert again.version is not None
    assert again.version.passed
    assert again.version.version == outcome.version.version + 1
    assert again.release is not None
    assert again.release.challenger == again.version.version


@pytest.mark.slow
def test_a_training_that_cannot_beat_the_champion_is_given_up_and_the_champion_stays(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("epochs = 1", "epochs = 2\nabandon_margin = 0.02")
    rewrite_spec("learning_rate = 4e-3", "learning_rate = 1e-6")  # it learns next to nothing

    outcome = retrain(MODEL, FIRST + WEEK, Cause.SCHEDULE)

    assert outcome.verdict == "abandoned"
    assert "given up after epoch 1 of 2: on 1 validation days that champion 1 has not trained on" in outcome.reasons[0]
    assert (outcome.version, outcome.request.status) == (None, "done")
    with world.records() as records:
        release = records.releases.current(MODEL)
    assert release is not None
    assert (release.champion, release.challenger) == (1, None)
    client = world.registry.client
    (run,) = client.search_runs(["1"], "tags.`evergreen.reason` LIKE 'given up%'")
    assert run.info.status == "KILLED"
    assert run.data.metrics["cost/device_seconds"] > 1.0
    assert "given up after epoch 1" in str(artifacts_of(outcome.request.request_id)["training"].data)


def test_a_champion_is_judged_by_what_it_reads_when_the_model_no_longer_does(
    world: Wiring, rewrite_spec: Callable[[str, str], None], tmp_path: Path
) -> None:
    rewrite_spec('entity_features = ["carrier", "origin", "dest"]', 'entity_features = ["carrier", "origin"]')

    outcome = retrain(MODEL, FIRST + WEEK)

    assert outcome.version is not None
    assert "dest" not in world.registry.training_set(outcome.version).features
    shown = artifacts_of(outcome.request.request_id)["gate"]
    assert "not_worse_than_champion" in str(shown.data)

    stranger = train(a_job(tmp_path, a_training_set(tmp_path)), lambda _: None)
    with pytest.raises(DataError, match=r"reads .*'delay'.* which neither the model's file nor feature service"):
        evaluate_artifact(
            world.spec(MODEL), stranger.uri, stranger.digest, world.registry.training_set(outcome.version), MODEL
        )


def test_a_decision_about_another_revision_changes_nothing(world: Wiring) -> None:
    judged = ReleaseDecision(revision=99, action="promote", checks=(), reasons=())
    with pytest.raises(ReleaseConflict, match="revision 99 was judged, but the release is at 1"):
        apply_decision.fn(world.spec(MODEL), judged, FIRST)
    with world.records() as records:
        assert len(records.releases.journal(MODEL)) == 1


def test_an_unknown_model_names_the_known_ones(empty_world: Wiring) -> None:
    with pytest.raises(UnknownModel, match="flight_delay"):
        retrain("flight_dely", FIRST)


def test_a_label_column_that_is_missing_is_named_and_the_episode_stays_open(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec('label = "late"', 'label = "delayed"')
    with pytest.raises(DataError, match="delayed"):
        retrain(MODEL, FIRST, Cause.DRIFT, "one")
    with world.records() as records:
        assert [r.status for r in records.admissions.recent(MODEL) if r.episode == "one"] == ["failed"]


def test_a_feature_service_that_does_not_exist_is_told_the_known_ones(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec('feature_service = "flight_delay"', 'feature_service = "flight_delays"')
    with pytest.raises(FeatureServiceMissing, match="flight_delay"):
        retrain(MODEL, FIRST, Cause.PERSON)
