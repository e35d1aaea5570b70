"""Remedies cheaper than a retrain, through the same flow, gate, registry and record."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from evergreen.types import Cause, Outcome, Remedy
from evergreen.wiring import Wiring
from flows.retrain import retrain
from tests.flow_worlds import FIRST

MODEL = "flight_delay"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cheap_remedies_give_versions_that_stood_before_the_same_gate(
    world: Wiring, first_champion: tuple[Path, Outcome]
) -> None:
    as_of = FIRST + timedelta(days=9)

    tuned = retrain(MODEL, as_of, Cause.PERSON, "tuned", Remedy.FINE_TUNE)
    moved = retrain(MODEL, as_of, Cause.PERSON, "moved", Remedy.RECALIBRATE)
    again = retrain(MODEL, as_of, Cause.PERSON, "again", Remedy.RECALIBRATE)

    champion = first_champion[1].version
    assert champion is not None
    for outcome, remedy in ((tuned, Remedy.FINE_TUNE), (moved, Remedy.RECALIBRATE)):
        assert outcome.verdict in ("passed", "refused"), outcome.reasons
        assert outcome.version is not None
        made = world.registry.candidate(outcome.version)
        first = world.registry.candidate(champion)
        assert (made.remedy, made.base) == (remedy, champion.artifact)
        assert made.trained_anew_until == first.trained_anew_until
        names = {check.name for check in world.registry.judgement(outcome.version)[2].checks}
        assert any("champion" in name for name in names)
    assert again.version is not None
    assert moved.version is not None
    assert again.version.version == moved.version.version  # the same rows give the same artifact
    with world.records() as records:
        asks = {request.episode: request for request in records.admissions.recent(MODEL)}
    assert asks["tuned"].remedy == Remedy.FINE_TUNE
    assert (asks["tuned"].device_seconds or 0) > (asks["moved"].device_seconds or 0) > 0


TUNE = """
[tune]
trials = 2
holdout_days = 7
epochs = [1, 1]
hidden = [[32, 16], [64, 32]]
learning_rate = []
weight_decay = []
dropout = []
input_noise = []
batch_size = []

[gate]"""


@pytest.mark.slow
def test_a_search_uses_what_its_trials_use_and_a_second_one_finds_them(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("\n[gate]", TUNE)

    as_of = FIRST + timedelta(days=1)

    first = retrain(MODEL, as_of, Cause.PERSON, "first", Remedy.SEARCH)
    again = retrain(MODEL, as_of, Cause.PERSON, "again", Remedy.SEARCH)

    assert first.version is not None
    made = world.registry.candidate(first.version)
    assert made.cost is not None
    assert (first.request.device_seconds or 0) > made.cost.device_seconds + 1.0, "two trials took more"
    assert again.request.device_seconds is None
