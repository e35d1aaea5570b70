import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from evergreen.errors import ArtifactError, UnknownModel
from evergreen.types import Release
from serving import loaded
from serving.loaded import LoadedModel, LoadedModels, NotLoadedError, Scoring
from serving.metrics import Metrics
from tests.serving.serving_factories import a_spec, counted, eventually

Load = Callable[[Release, LoadedModel | None], LoadedModel]
Fetch = Callable[[str, int], Scoring]


def a_release(revision: int = 1, champion: int | None = 1, model: str = "taxi", previous: int | None = None) -> Release:
    at = datetime(2013, 4, 1, tzinfo=UTC)
    return Release(model=model, revision=revision, champion=champion, previous=previous, changed_at=at)


def fetch(model: str, number: int) -> Any:
    """Stands for a version."""
    return f"{model} {number}"


def load(release: Release, current: LoadedModel | None, fetch: Fetch = fetch) -> LoadedModel:
    """As `Runtime` does: what is in memory is kept."""
    kept = {} if current is None else current.versions
    wanted = [number for number in (release.champion, release.challenger) if number is not None]
    versions = {number: kept.get(number) or fetch(release.model, number) for number in wanted}
    return LoadedModel(a_spec(release.model), release, versions, needs={})


def follow(
    releases: list[Release], load: Load = load, poll_seconds: float = 60.0, fetch: Fetch = fetch
) -> tuple[LoadedModels, Metrics]:
    metrics = Metrics()
    return LoadedModels(lambda: list(releases), load, fetch, metrics, poll_seconds=poll_seconds), metrics


@dataclass
class SlowRegistry:
    """Takes as long to give a version as a test wants."""

    slow: set[tuple[str, int]]
    asked: list[tuple[str, int]] = field(default_factory=list)
    go_on: Event = field(default_factory=Event)

    def fetch(self, model: str, number: int) -> Any:
        self.asked.append((model, number))
        if (model, number) in self.slow:
            assert self.go_on.wait(60)
        return fetch(model, number)

    def load(self, release: Release, current: LoadedModel | None) -> LoadedModel:
        return load(release, current, self.fetch)

    def close(self) -> None:
        self.go_on.set()


def while_two_loads() -> tuple[list[Release], SlowRegistry, LoadedModels]:
    """The taxi's version 1 serves, and 2 is being loaded until the registry goes on."""
    releases, registry = [a_release(1, 1)], SlowRegistry({("taxi", 2)})
    models, _ = follow(releases, registry.load, 0.01)
    models.refresh()
    models.start()
    releases[:] = [a_release(2, 2)]
    eventually(lambda: ("taxi", 2) in registry.asked)
    return releases, registry, models


def test_a_changed_release_takes_over_and_is_counted() -> None:
    releases = [a_release(1, champion=1)]
    models, metrics = follow(releases)
    models.refresh()
    releases[:] = [a_release(2, champion=2)]

    models.refresh()

    assert models.named("taxi").release.champion == 2
    assert counted(metrics, "swaps_total", model="taxi") == 2
    assert counted(metrics, "serving_version", model="taxi", role="champion") == 2


def test_an_unchanged_release_is_not_loaded_again() -> None:
    models, metrics = follow([a_release()])
    models.refresh()

    models.refresh()

    assert counted(metrics, "swaps_total", model="taxi") == 1


def test_a_release_that_cannot_be_loaded_leaves_the_old_one_and_says_why() -> None:
    def broken(release: Release, current: LoadedModel | None) -> LoadedModel:
        if release.champion == 2:
            raise ArtifactError("its bytes changed")
        return load(release, current)

    releases = [a_release(1, champion=1)]
    models, metrics = follow(releases, broken)
    models.refresh()
    releases[:] = [a_release(2, champion=2)]

    models.refresh()

    assert models.named("taxi").release.champion == 1
    assert models.reason("taxi") == "revision 2 cannot be loaded: ArtifactError: its bytes changed"
    assert counted(metrics, "load_failures_total", model="taxi") == 1
    assert counted(metrics, "serving_version", model="taxi", role="champion") == 1


def test_a_failed_load_is_tried_again_later_and_not_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("serving.loaded.time", SimpleNamespace(monotonic=lambda: now))
    tries: list[int] = []

    def recovering(release: Release, current: LoadedModel | None) -> LoadedModel:
        tries.append(release.revision)
        if len(tries) == 1:
            raise ConnectionError("the registry is restarting")
        return load(release, current)

    models, _ = follow([a_release()], recovering, poll_seconds=0.05)
    models.refresh()
    now = 0.09
    models.refresh()
    assert tries == [1]

    now = 0.1
    models.start()
    eventually(lambda: models.reason("taxi") is None)
    models.close()

    assert models.named("taxi").release.revision == 1


def test_whoever_needs_no_key_is_not_told_what_a_driver_says() -> None:
    def away(release: Release, current: LoadedModel | None) -> LoadedModel:
        raise ConnectionError("user ada at db.internal") if release.model == "bike" else ArtifactError("torn")

    models, _ = follow([a_release(model="bike"), a_release(model="taxi")], away)
    models.refresh()

    assert models.reason("bike") == "revision 1 cannot be loaded: ConnectionError: user ada at db.internal"
    assert models.reason("bike", brief=True) == "revision 1 cannot be loaded: ConnectionError"
    assert models.reason("taxi", brief=True) == "revision 1 cannot be loaded: ArtifactError: torn"


def test_going_back_to_what_serves_clears_the_reason() -> None:
    def broken(release: Release, current: LoadedModel | None) -> LoadedModel:
        if release.champion == 2:
            raise ArtifactError("its bytes changed")
        return load(release, current)

    releases = [a_release(1, champion=1)]
    models, _ = follow(releases, broken)
    for release in (a_release(1, champion=1), a_release(2, champion=2), a_release(3, champion=1)):
        releases[:] = [release]
        models.refresh()

    assert models.reason("taxi") is None
    assert models.named("taxi").release.revision == 3


def test_one_model_that_cannot_be_loaded_does_not_stop_another() -> None:
    def picky(release: Release, current: LoadedModel | None) -> LoadedModel:
        if release.model == "bike":
            raise ArtifactError("torn")
        return load(release, current)

    models, _ = follow([a_release(model="bike"), a_release(model="taxi")], picky)

    models.refresh()

    assert models.named("taxi").release.champion == 1
    with pytest.raises(NotLoadedError, match=r"'bike' is released but not in memory: .*torn"):
        models.named("bike")


def test_an_unknown_model_names_the_known_ones() -> None:
    models, _ = follow([a_release(model="bike"), a_release(model="taxi")])
    models.refresh()

    with pytest.raises(UnknownModel, match=r"no model 'texi' is released; known models: \['bike', 'taxi'\]"):
        models.named("texi")


def test_a_release_without_a_champion_stops_answering() -> None:
    releases = [a_release(1)]
    models, _ = follow(releases)
    models.refresh()
    releases[:] = [a_release(2, champion=None)]

    models.refresh()

    with pytest.raises(NotLoadedError, match="its release has no champion"):
        models.named("taxi")


def test_a_table_that_is_away_leaves_what_serves_and_is_counted() -> None:
    away: list[bool] = []

    def read() -> list[Release]:
        if away:
            raise ConnectionError("the database is away")
        return [a_release()]

    metrics = Metrics()
    models = LoadedModels(read, load, fetch, metrics, poll_seconds=0.01)
    models.refresh()
    away.append(True)

    models.start()
    eventually(lambda: counted(metrics, "poll_failures_total") >= 2)
    models.close()

    assert models.named("taxi").release.champion == 1


def test_the_thread_takes_a_changed_release_by_itself() -> None:
    releases = [a_release(1, champion=1)]
    models, _ = follow(releases, poll_seconds=0.01)
    models.refresh()

    models.start()
    releases[:] = [a_release(2, champion=2)]
    eventually(lambda: models.named("taxi").release.champion == 2)
    models.close()


def test_a_model_that_loads_slowly_does_not_hold_up_another() -> None:
    releases = [a_release(1, 1, "bike"), a_release(1, 1, "taxi")]
    registry = SlowRegistry({("bike", 2)})
    models, _ = follow(releases, registry.load, 0.01)
    models.refresh()
    models.start()
    with closing(models), closing(registry):
        releases[0] = a_release(2, 2, "bike")
        eventually(lambda: ("bike", 2) in registry.asked)

        releases[1] = a_release(2, 1, "taxi")  # back to what is in memory
        eventually(lambda: models.named("taxi").release.revision == 2)
        releases[1] = a_release(3, 2, "taxi")  # a new version
        eventually(lambda: models.named("taxi").release.revision == 3)

        assert models.named("bike").release.revision == 1
        registry.go_on.set()
        eventually(lambda: models.named("bike").release.revision == 2)


def test_two_versions_of_a_model_are_never_loaded_at_once() -> None:
    releases, looks = [a_release(1, 1)], list[int]()
    registry = SlowRegistry({("taxi", 2)})

    def read() -> list[Release]:
        looks.append(releases[0].revision)
        return list(releases)

    models = LoadedModels(read, registry.load, fetch, Metrics(), poll_seconds=0.01)
    models.refresh()
    models.start()
    with closing(models), closing(registry):
        releases[:] = [a_release(2, 2)]
        eventually(lambda: ("taxi", 2) in registry.asked)

        releases[:] = [a_release(3, 3)]
        eventually(lambda: looks.count(3) > 3)
        assert registry.asked == [("taxi", 1), ("taxi", 2)]

        registry.go_on.set()
        eventually(lambda: models.named("taxi").release.revision == 3)
        assert registry.asked == [("taxi", 1), ("taxi", 2), ("taxi", 3)]


def test_a_release_that_changes_while_its_version_is_loaded_is_not_loaded_again() -> None:
    releases, registry, models = while_two_loads()
    with closing(models), closing(registry):
        releases[:] = [a_release(3, 2)]
        eventually(lambda: models.released()["taxi"].revision == 3)

        registry.go_on.set()
        eventually(lambda: models.named("taxi").release.revision == 3)

    assert registry.asked == [("taxi", 1), ("taxi", 2)]


def test_closing_does_not_wait_for_ever_for_a_database_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answers = Event(), Event()

    def hang() -> list[Release]:
        asked.set()
        assert answers.wait(60)
        return []

    monkeypatch.setattr(loaded, "CLOSE_SECONDS", 0.05)
    models = LoadedModels(hang, load, fetch, Metrics(), poll_seconds=0.01)
    models.start()
    assert asked.wait(60)

    closing = Thread(target=models.close)
    closing.start()
    closing.join(10)
    waits = closing.is_alive()
    answers.set()

    assert not waits
    eventually(lambda: not models._thread.is_alive())


def test_a_version_loaded_for_a_model_that_was_taken_off_does_not_serve() -> None:
    releases, registry, models = while_two_loads()
    releases[:] = [a_release(3, None)]
    eventually(lambda: models.serving("taxi") is None)

    registry.close()
    models.close()

    assert models.serving("taxi") is None


def test_a_way_back_does_not_wait_for_the_version_that_is_loaded_and_is_not_overtaken_by_it() -> None:
    releases, registry, models = while_two_loads()

    releases[:] = [a_release(3, 1)]
    eventually(lambda: models.named("taxi").release.revision == 3)
    registry.close()
    models.close()  # waits for what is loaded

    assert models.named("taxi").release == a_release(3, 1)
    assert models.reason("taxi") is None


def test_the_previous_champion_is_brought_into_memory_after_the_one_that_serves() -> None:
    registry = SlowRegistry({("taxi", 1)})
    releases = [a_release(2, 2, previous=1)]
    models, metrics = follow(releases, registry.load, 0.01, registry.fetch)
    with closing(models), closing(registry):
        models.refresh()
        models.start()
        assert models.named("taxi").versions.keys() == {2}  # nobody waits for it

        eventually(lambda: ("taxi", 1) in registry.asked)
        registry.go_on.set()
        eventually(lambda: models.named("taxi").versions.keys() == {1, 2})
        releases[:] = [a_release(3, 1)]
        eventually(lambda: models.named("taxi").release.revision == 3)

    assert models.named("taxi").versions.keys() == {1}
    assert registry.asked == [("taxi", 2), ("taxi", 1)]
    assert counted(metrics, "swaps_total", model="taxi") == 2


def test_a_previous_champion_that_cannot_be_had_is_said_once_and_asked_for_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked: list[int] = []

    def recovering(model: str, number: int) -> Any:
        asked.append(number)
        if len(asked) < 3:
            raise ConnectionError("the registry is restarting")
        return fetch(model, number)

    models, metrics = follow([a_release(2, 2, previous=1)], poll_seconds=0.01, fetch=recovering)
    models.refresh()
    with closing(models), caplog.at_level(logging.WARNING):
        models.start()
        eventually(lambda: 1 in models.named("taxi").versions)

    assert asked == [1, 1, 1]
    (said,) = caplog.messages
    assert "taxi: the previous champion, version 1, is not in memory" in said
    assert models.reason("taxi") is None
    assert counted(metrics, "load_failures_total", model="taxi") == 0


def test_a_request_may_bring_what_champion_and_challenger_take_as_the_champion_takes_it() -> None:
    """The previous champion, which answers nothing, took other columns, and one of them for something else."""

    def version(**inputs: str) -> Any:
        return SimpleNamespace(inputs=inputs)

    release = a_release(3, champion=2, previous=1).model_copy(update={"challenger": 3, "challenger_share": 0.1})
    versions = {
        2: version(fare="numeric", zone="categorical"),
        3: version(fare="categorical", tip="numeric"),
        1: version(fare="categorical", zone="numeric", dropped="numeric"),
    }

    inputs = LoadedModel(a_spec("taxi"), release, versions, needs={}).inputs

    assert inputs == {"fare": "number", "zone": "category", "tip": "number"}
