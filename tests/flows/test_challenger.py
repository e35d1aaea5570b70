"""A challenger made by the watch: what fresh rows would have brought, on days that nobody has seen."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from evergreen.types import TrainedModel
from evergreen.wiring import Wiring
from flows.materialize import materialize
from flows.score_batch import score_batch
from flows.watch import watch
from tests.flow_worlds import FIRST
from tests.flows.test_flows import MODEL, WEEK


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["fine_tune", "retrain"])
def test_a_watch_holds_a_challenger_beside_the_champion_and_finds_it_again(
    world: Wiring, rewrite_spec: Callable[[str, str], None], kind: str
) -> None:
    rewrite_spec(
        "min_label_share = 0.8",
        f'min_label_share = 0.8\nchallenger = "{kind}"\nmin_challenger_gain = 0.0\nmin_labels = 300',
    )
    end = FIRST + 2 * WEEK + timedelta(days=1)
    materialize(MODEL, end)
    score_batch(FIRST, end, MODEL)

    first = watch(MODEL, end)
    made = sorted((world.settings.home / "challengers").glob("*.npz"))
    again = watch(MODEL, end)

    assert first is not None
    assert again is not None
    [told] = [reason for reason in first.reasons if "would have a loss" in reason]
    assert ("tuned further" in told) == (kind == "fine_tune")
    assert "on 7 days" in told
    alarmed = any(alarm.rule == "[monitor].min_challenger_gain = 0" for alarm in first.alarms)
    assert alarmed == ("with 95% confidence -" not in told)
    assert len(made) == (1 if kind == "fine_tune" else 2)
    assert sorted((world.settings.home / "challengers").glob("*.npz")) == made
    assert told in again.reasons


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_the_window_slides_both_networks_know_as_much(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("history_start = 2013-01-01", "window_days = 28")
    rewrite_spec("min_label_share = 0.8", 'min_label_share = 0.8\nchallenger = "retrain"\nmin_labels = 300')
    end = FIRST + 2 * WEEK + timedelta(days=1)
    materialize(MODEL, end)
    score_batch(FIRST, end, MODEL)

    watch(MODEL, end)

    results = (world.settings.home / "challengers").glob("*/result.json")
    sets = [TrainedModel.model_validate_json(path.read_text()).training_set for path in results]
    newer, older = sorted((one.holdout.start - one.window.start for one in sets), reverse=True)
    assert newer == older == timedelta(days=28 - 7)
