"""A serving process over real versions, as the releases and the registry change around it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from evergreen.wiring import Wiring
from serving.runtime import Runtime
from tests.serving.server_process import promoted
from tests.serving.serving_factories import NOON, eventually

MODEL = "flight_delay"


@contextmanager
def registry_away(wiring: Wiring) -> Iterator[None]:
    """No version's verdict or artifact can be read."""
    files = wiring.settings.home / "mlartifacts"
    away = files.rename(files.with_name("away"))
    try:
        yield
    finally:
        away.rename(files)


def test_a_process_started_after_the_promotion_goes_back_without_the_registry(installation: Wiring) -> None:
    promoted(installation, 1)
    promoted(installation, 2)

    with Runtime.open(installation) as runtime:
        eventually(lambda: 1 in runtime.models.named(MODEL).versions)
        with registry_away(installation):
            with installation.records() as records:
                records.releases.take_back(MODEL, at=NOON, actor="a test", reason="too many late")

            eventually(lambda: runtime.models.named(MODEL).release.champion == 1)
        assert runtime.models.named(MODEL).versions.keys() == {1}


def test_a_release_whose_versions_are_in_memory_serves_though_the_model_s_file_is_faulty(
    installation: Wiring, caplog: pytest.LogCaptureFixture
) -> None:
    promoted(installation, 1)
    promoted(installation, 2)
    file = installation.settings.models_dir / f"{MODEL}.toml"
    written = file.read_text()

    with Runtime.open(installation) as runtime:
        eventually(lambda: 1 in runtime.models.named(MODEL).versions)
        before = runtime.models.named(MODEL)
        file.write_text(written + "\n[serve")
        try:
            with installation.records() as records:
                records.releases.take_back(MODEL, at=NOON, actor="a test", reason="too many late", again=True)
            eventually(lambda: runtime.models.named(MODEL).release.champion == 1, seconds=20)
            after = runtime.models.named(MODEL)
            promoted(installation, 2)  # which is not in memory any more
            eventually(lambda: runtime.models.reason(MODEL) is not None)
        finally:
            file.write_text(written)
        assert runtime.models.named(MODEL).release == after.release

    assert (after.spec, after.needs) == (before.spec, before.needs)
    assert after.versions.keys() == {1}
    assert "serves under what was read of the model's file before; it cannot be read now: SpecError" in caplog.text
