from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from evergreen.errors import ArtifactError, UnknownModel
from evergreen.types import Release
from serving.loaded import LoadedModel, LoadedModels, NotLoadedError
from serving.metrics import Metrics
from tests.serving.serving_factories import a_spec, counted, eventually

Load = Callable[[Release, LoadedModel | None], LoadedModel]


def a_release(revision: int = 1, champion: int | None = 1, model: str = "taxi") -> Release:
    at = datetime(2013, 4, 1, tzinfo=UTC)
    return Release(model=model, revision=revision, champion=champion, changed_at=at)


def load(release: Release, current: LoadedModel | None) -> LoadedModel:
    return LoadedModel(a_spec(release.model), release, versions={}, needs={})


def follow(releases: list[Release], load: Load = load, poll_seconds: float = 60.0) -> tuple[LoadedModels, Metrics]:
    metrics = Metrics()
    return LoadedModels(lambda: releases, load, metrics, poll_seconds=poll_seconds), metrics


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


def test_a_failed_load_is_tried_again_later_and_not_at_every_look() -> None:
    tries: list[int] = []

    def recovering(release: Release, current: LoadedModel | None) -> LoadedModel:
        tries.append(release.revision)
        if len(tries) == 1:
            raise ConnectionError("the registry is restarting")
        return load(release, current)

    models, _ = follow([a_release()], recovering, poll_seconds=0.05)
    models.refresh()
    models.refresh()
    assert tries == [1]

    models.start()
    eventually(lambda: models.reason("taxi") is None)
    models.close()

    assert models.named("taxi").release.revision == 1


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
    models = LoadedModels(read, load, metrics, poll_seconds=0.01)
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
