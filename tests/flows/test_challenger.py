"""A challenger made by the watch: what fresh rows would have brought, on days that nobody has seen."""

from collections.abc import Callable
from datetime import timedelta

import pytest

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
