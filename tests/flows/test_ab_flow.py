"""An A/B test from its beginning to its end through the real flow; and a hand in MLflow, of which Prefect is told."""

import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from evergreen.errors import InvalidTransition
from evergreen.wiring import Wiring
from flows.ab_test import ab_test
from flows.reconcile import reconcile
from flows.roll_out import roll_out
from tasks.release import EVENT, kept_out
from tests.serving.conftest import register, write_feature_tables
from tests.serving.server_process import released
from tests.serving.serving_factories import NOON

MODEL = "flight_delay"


def told_events() -> list[str]:
    """What the reconciler told Prefect of: the kind of each finding."""
    with get_client(sync_client=True) as client:
        answer = client._client.post("/events/filter", json={"filter": {"event": {"name": [EVENT]}}})
    return [event["payload"]["kind"] for event in answer.raise_for_status().json()["events"]]


def test_a_test_keeps_roll_outs_out_outlasts_a_hand_in_mlflow_and_ends_when_its_days_are_over(
    empty_world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("[serve]", '[ab_test]\nentity = "tailnum"\nmin_days = 1\nmax_days = 3\n\n[serve]')
    write_feature_tables(empty_world.settings.data)
    for seed in (1, 2):
        register(empty_world, MODEL, seed=seed)
    released(empty_world, 1)

    running = ab_test(MODEL, 2, NOON, "who knows")

    assert (running.champion, running.challenger, running.challenger_share) == (1, 2, 0.5)
    assert ab_test(MODEL, 2, NOON) == running  # a run that died after it began is run again
    assert roll_out(MODEL, "advance", NOON + timedelta(hours=1)) == running
    with pytest.raises(InvalidTransition, match="an A/B test runs"):
        roll_out(MODEL, "promote", NOON)
    assert "an A/B test of version 2 has the traffic" in kept_out(running, 3)[0]

    empty_world.registry.client.set_registered_model_alias(MODEL, "champion", "2")
    assert {finding.kind for finding in reconcile()} == {"moved_by_hand"}
    deadline = time.monotonic() + 30
    while "moved_by_hand" not in told_events():  # events go out in a thread of their own
        assert time.monotonic() < deadline, "Prefect was not told"
        time.sleep(0.1)

    assert ab_test(MODEL, as_of=NOON + timedelta(days=2)).challenger == 2
    ended = ab_test(MODEL, as_of=NOON + timedelta(days=3))
    assert (ended.champion, ended.challenger, ended.test) == (1, None, None)
    with empty_world.records() as records:
        journal = records.releases.journal(MODEL)
    assert [entry.action for entry in journal] == ["test", "ab_test", "moved_by_hand", "ab_inconclusive"]
    assert "the test ran for [ab_test].max_days = 3" in journal[-1].reason
    with get_client(sync_client=True) as client:
        shown = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["ab-test"])))
    assert any("**inconclusive**" in str(artifact.data) for artifact in shown)
