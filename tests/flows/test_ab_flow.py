"""An A/B test from its beginning to its end through the real flow; and a hand in MLflow, of which Prefect is told."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

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
from tests.serving.server_process import a_server, released
from tests.serving.serving_factories import NOON, a_flight, eventually

MODEL = "flight_delay"


def told_events() -> list[str]:
    """What the reconciler told Prefect of: the kind of each finding."""
    with get_client(sync_client=True) as client:
        answer = client._client.post("/events/filter", json={"filter": {"event": {"name": [EVENT]}}})
    return [event["payload"]["kind"] for event in answer.raise_for_status().json()["events"]]


@pytest.mark.slow
@pytest.mark.timeout(900)
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
    deadline = time.monotonic() + 120
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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_with_traffic_over_http_people_keep_their_version_and_the_better_one_takes_all(
    empty_world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("[serve]", '[ab_test]\nentity = "tailnum"\nmin_days = 3\nmin_rows = 200\n\n[serve]')
    # Latencies here are this machine's, which may be busy.
    rewrite_spec("\n[release]\n", "\n[release]\nmax_latency_ms = 60000\n")
    write_feature_tables(empty_world.settings.data)
    for seed in (1, 2):
        register(empty_world, MODEL, seed=seed)
    released(empty_world, 1)
    ab_test(MODEL, 2, NOON, "which is better for people who come every day")
    met: dict[str, set[int]] = {}
    verdicts = []
    with a_server(empty_world) as server:
        for day in range(12):
            at = NOON + timedelta(days=day, hours=1)
            people = [f"P{number:03d}" for number in range(300)]
            rows = [a_flight(n, tailnum=who, example_id=f"{day}-{who}") for n, who in enumerate(people)]
            said = server.client.post(f"/predict/{MODEL}", json={"rows": rows, "as_of": at.isoformat()})
            answers = said.raise_for_status().json()["predictions"]
            for who, answer in zip(people, answers, strict=True):
                met.setdefault(who, set()).add(answer["version"])
            # What version 2 finds likely comes true, what version 1 does comes out the other way.
            outcomes = [
                {
                    "example_id": answer["example_id"],
                    "label": float((answer["score"] > 0.5) == (answer["version"] == 2)),
                    "label_timestamp": (at + timedelta(hours=5)).isoformat(),
                }
                for answer in answers
            ]
            server.client.post(f"/outcomes/{MODEL}", json={"outcomes": outcomes}).raise_for_status()
            eventually(partial(logged, empty_world, len(met) * (day + 1)))
            release = ab_test(MODEL, as_of=NOON + timedelta(days=day + 1))
            verdicts.append(release.test is None)
            if release.test is None:
                break
        eventually(lambda: server.client.get("/models").json()[0]["serving"]["champion"] == 2)

    assert all(len(versions) == 1 for versions in met.values())  # nobody met both
    assert 0.4 < sum(versions == {2} for versions in met.values()) / len(met) < 0.6
    assert (release.champion, release.previous, release.challenger) == (2, 1, None)
    assert verdicts.count(True) == 1
    assert len(verdicts) >= 3
    with empty_world.records() as records:
        ended = records.releases.journal(MODEL)[-1]
    assert ended.action == "ab_promote"
    assert "is proved" in ended.reason


def logged(wire: Wiring, rows: int) -> bool:
    with wire.records() as records:
        return len(records.predictions.since(MODEL, NOON, NOON + timedelta(days=30))) == rows
