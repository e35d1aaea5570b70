"""Which answers the gate computes again: those whose features serving looked up."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from evergreen.types import Parity
from evergreen.wiring import Wiring, wiring
from serving.runtime import Runtime
from serving.scoring import Question
from tasks.parity import check_parity
from tests.serving.server_process import promoted
from tests.serving.serving_factories import NOON, a_flight

MODEL = "flight_delay"
EVENING = NOON + timedelta(hours=6)
KNOWN = [f"known-{number}" for number in range(10)]


@pytest.fixture
def flights(installation: Wiring) -> Iterator[None]:
    """`KNOWN` flights in the table of what can be asked about."""
    rows = pd.DataFrame([a_flight(number, example_id=name) for number, name in enumerate(KNOWN)])
    for column in ("scheduled_departure", "scheduled_arrival"):
        rows[column] = pd.to_datetime(rows[column]).dt.as_unit("us")
    rows["event_timestamp"] = pd.Timestamp(NOON - timedelta(hours=1)).as_unit("us")
    table = installation.settings.data / "features" / "flights"
    table.mkdir()
    rows.to_parquet(table / f"day={NOON:%Y-%m-%d}.parquet", index=False)
    yield
    for file in table.iterdir():
        file.unlink()
    table.rmdir()


@pytest.fixture
def here(installation: Wiring, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The installation is what tasks work on."""
    monkeypatch.setenv("EVERGREEN_HOME", str(installation.settings.home))
    monkeypatch.setenv("EVERGREEN_MODELS_DIR", str(installation.settings.models_dir))
    wiring.cache_clear()
    yield
    wiring().engine.dispose()
    wiring.cache_clear()


def checked(installation: Wiring) -> Parity:
    spec = installation.spec(MODEL)
    gate = spec.gate.model_copy(update={"parity_rows": 10_000})
    found = check_parity.fn(spec.model_copy(update={"gate": gate}), EVENING)
    assert found is not None
    return found


def test_an_answer_of_brought_features_is_not_held_against_the_store(
    installation: Wiring, flights: None, here: None
) -> None:
    promoted(installation, 2)
    with Runtime.open(installation, follow=False) as serving:
        loaded = serving.models.named(MODEL)
        flown = [a_flight(number) for number in range(len(KNOWN))]
        rows: dict[str, Any] = {name: [one[name] for one in flown] for name in loaded.needs}
        brought: dict[str, Any] = {
            name: [99.0 if kind == "number" else "UA"] * len(KNOWN) for name, kind in loaded.inputs.items()
        }

        serving.scorer.answer([Question(loaded, brought, KNOWN, EVENING - timedelta(hours=1), brings_features=True)])
        assert serving.log.flush()
        only = checked(installation)
        asked = [
            Question(loaded, brought, KNOWN, NOON, brings_features=True),
            Question(loaded, rows, KNOWN, NOON),  # of the same flights at the same moment
        ]
        answers = serving.scorer.answer(asked)
        assert serving.log.flush()
        both = checked(installation)

    assert not any(isinstance(answer, Exception) for answer in answers)
    assert both.answers - only.answers == 20  # each is in the log
    assert (only.rows, only.unknown) == (0, only.answers)
    assert (both.rows, both.mismatches, both.unknown) == (10, 0, only.answers + 10)
