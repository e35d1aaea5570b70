"""The reconciler on both databases and a real MLflow: what a dead process or a hand left behind is put back and told."""

import shutil
from pathlib import Path

import mlflow
import pytest
from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from evergreen.adapters.mlflow.registry import ModelRegistry
from evergreen.adapters.reconciler import reconcile, show
from evergreen.adapters.releases import ReleaseStore
from evergreen.adapters.tables import ReleaseRow
from evergreen.release import start
from evergreen.settings import Settings
from evergreen.types import Finding, Release
from tests.adapters.test_mlflow import a_candidate, empty_database, register, settings
from tests.databases import database_url, engine, postgres_url
from tests.factories import MAY, a_gate_decision

MODEL = "flight_delay"


@pytest.fixture
def registry(settings: Settings, tmp_path: Path) -> ModelRegistry:
    """Two versions that may serve, and a third that was refused."""
    registry = ModelRegistry(settings)
    for content in "ab":
        register(registry, a_candidate(tmp_path, content))
    register(registry, a_candidate(tmp_path, "c"), decision=a_gate_decision(passed=False))
    return registry


def change(engine: Engine, version: int, share: float = 0.1) -> Release:
    with Session(engine) as session, session.begin():
        return ReleaseStore(session).change(
            MODEL,
            lambda current: start(current, model=MODEL, version=version, share=share, at=MAY),
            action="start",
            actor="ada",
            reason="",
        )


def client(settings: Settings) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def kinds(found: tuple[Finding, ...]) -> list[str]:
    return [finding.kind for finding in found]


def test_a_release_that_is_mirrored_needs_nothing(engine: Engine, registry: ModelRegistry) -> None:
    registry.mirror(change(engine, 1))

    assert reconcile(engine, registry) == ()


def test_a_step_that_died_before_its_mirror_is_finished(engine: Engine, registry: ModelRegistry) -> None:
    registry.mirror(change(engine, 1))
    release = change(engine, 2)

    found = reconcile(engine, registry)

    assert set(kinds(found)) == {"half_done"}
    assert all(finding.repaired for finding in found)
    assert registry.mirrored(MODEL) == ({"champion": 1, "challenger": 2}, release)
    assert reconcile(engine, registry) == ()


def test_an_alias_that_was_moved_by_hand_is_put_back_and_told(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    release = change(engine, 1)
    registry.mirror(release)
    client(settings).set_registered_model_alias(MODEL, "champion", "2")

    (finding,) = reconcile(engine, registry)

    assert finding.kind == "moved_by_hand"
    assert finding.reason == "alias champion was at version 2, revision 1 says version 1: somebody moved it by hand"
    shown, told = registry.mirrored(MODEL)
    assert shown == {"champion": 1}
    with Session(engine) as session:
        noted = ReleaseStore(session).journal(MODEL)[-1]
    assert (noted.action, noted.actor, noted.reason) == ("moved_by_hand", "reconciler", finding.reason)
    assert noted.after == told == release.model_copy(update={"revision": 2})
    assert reconcile(engine, registry) == ()


def test_a_hand_that_moves_an_alias_again_is_noted_again_and_one_repair_that_died_is_not_noted_twice(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    registry.mirror(change(engine, 1))
    hand = client(settings)

    class Dying:
        def __getattr__(self, name: str) -> object:
            return getattr(registry, name)

        def mirror(self, release: Release) -> None:
            raise RuntimeError(f"killed before the mirror of {release.revision}")

    hand.set_registered_model_alias(MODEL, "champion", "2")
    with pytest.raises(RuntimeError):
        reconcile(engine, Dying())  # type: ignore[arg-type]
    reconcile(engine, registry)
    hand.set_registered_model_alias(MODEL, "champion", "2")
    reconcile(engine, registry)

    with Session(engine) as session:
        journal = ReleaseStore(session).journal(MODEL)
    assert [entry.action for entry in journal] == ["start", "moved_by_hand", "moved_by_hand"]
    assert registry.mirrored(MODEL) == ({"champion": 1}, journal[-1].after)


def test_a_hand_that_deletes_the_tag_as_well_is_noted_each_time_and_a_repair_that_died_is_not_noted_twice(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    registry.mirror(change(engine, 1))
    hand = client(settings)

    def both() -> None:
        hand.set_registered_model_alias(MODEL, "champion", "2")
        hand.delete_registered_model_tag(MODEL, "evergreen.release")

    class Dying:
        def __getattr__(self, name: str) -> object:
            return getattr(registry, name)

        def mirror(self, release: Release, *, tag_alone: bool = False) -> None:
            if not tag_alone:
                raise RuntimeError("killed before the mirror")
            registry.mirror(release, tag_alone=True)

    both()
    with pytest.raises(RuntimeError):
        reconcile(engine, Dying())  # type: ignore[arg-type]
    reconcile(engine, registry)
    both()
    reconcile(engine, registry)

    with Session(engine) as session:
        journal = ReleaseStore(session).journal(MODEL)
    assert [entry.action for entry in journal] == ["start", "moved_by_hand", "moved_by_hand"]
    assert registry.mirrored(MODEL) == ({"champion": 1}, journal[-1].after)


def test_an_alias_that_was_deleted_by_hand_comes_back(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    registry.mirror(change(engine, 1))
    client(settings).delete_registered_model_alias(MODEL, "champion")

    assert kinds(reconcile(engine, registry)) == ["moved_by_hand"]
    assert registry.mirrored(MODEL)[0] == {"champion": 1}


@pytest.mark.parametrize("loss", ["changed", "deleted"])
def test_a_row_that_was_written_by_hand_says_again_what_the_journal_says(
    engine: Engine, registry: ModelRegistry, loss: str
) -> None:
    release = change(engine, 1)
    registry.mirror(release)
    with Session(engine) as session, session.begin():
        if loss == "deleted":
            session.query(ReleaseRow).delete()
        else:
            session.execute(update(ReleaseRow).values(champion=3))

    found = reconcile(engine, registry)

    assert kinds(found) == ["release_row"]
    with Session(engine) as session:
        assert ReleaseStore(session).current(MODEL) == release
        assert len(ReleaseStore(session).journal(MODEL)) == 1


def test_a_released_version_that_may_not_serve_is_told_and_left(engine: Engine, registry: ModelRegistry) -> None:
    registry.mirror(change(engine, 3))

    (finding,) = reconcile(engine, registry)

    assert (finding.kind, finding.repaired) == ("not_servable", False)
    assert "did not pass its gate" in finding.reason


def test_a_version_that_somebody_deleted_is_told_at_every_look_and_its_alias_is_not_journalled(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    change(engine, 1)
    release = change(engine, 2, share=1.0)
    registry.mirror(release)
    client(settings).delete_model_version(MODEL, "1")

    for _ in range(2):
        (finding,) = reconcile(engine, registry)
        assert (finding.kind, finding.repaired) == ("not_servable", False)
        assert "holds no version 1" in finding.reason

    assert registry.mirrored(MODEL) == ({"champion": 2}, release)
    with Session(engine) as session:
        assert [entry.action for entry in ReleaseStore(session).journal(MODEL)] == ["start", "start"]


def test_a_step_that_died_is_finished_though_a_version_of_it_was_deleted(
    engine: Engine, registry: ModelRegistry, settings: Settings
) -> None:
    change(engine, 1)
    registry.mirror(change(engine, 2, share=1.0))
    client(settings).delete_model_version(MODEL, "1")
    release = change(engine, 3)

    found = reconcile(engine, registry)

    assert {finding.kind for finding in found if finding.repaired} == {"half_done"}
    assert registry.mirrored(MODEL) == ({"champion": 2, "challenger": 3}, release)
    assert set(kinds(reconcile(engine, registry))) == {"not_servable"}


def test_a_model_the_registry_never_held_is_told(engine: Engine, settings: Settings) -> None:
    change(engine, 1)

    assert kinds(reconcile(engine, ModelRegistry(settings))) == ["not_servable"]


def test_two_that_mirror_at_once_end_with_the_newest(engine: Engine, registry: ModelRegistry) -> None:
    """The slower one writes an old release last, and looks again."""
    old = change(engine, 1)

    class Slow:
        def mirror(self, release: Release) -> None:
            if release == old:
                self.newest = change(engine, 2)
                registry.mirror(self.newest)
            registry.mirror(release)

    slow = Slow()
    assert show(engine, slow, MODEL) == slow.newest  # type: ignore[arg-type]
    assert registry.mirrored(MODEL) == ({"champion": 1, "challenger": 2}, slow.newest)
