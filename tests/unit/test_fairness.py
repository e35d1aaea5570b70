from datetime import date
from typing import Any

import numpy as np
import pytest

from evergreen.errors import SpecError
from evergreen.gate import decide
from evergreen.gate.fairness import groups_are_close
from evergreen.groups import count_groups
from evergreen.spec import FairnessConfig, GateConfig, parse_spec
from evergreen.types import Evaluation, GroupDay
from tests.factories import an_evaluation


def rules(**bounds: Any) -> GateConfig:
    return GateConfig(fairness=FairnessConfig(column="origin", **bounds))


def judged(groups: dict[str, dict[date, GroupDay]]) -> Evaluation:
    return an_evaluation().model_copy(update={"groups": groups})


def simulated(seed: int, days: int = 14, rows: int = 200, *, rise: float = 0.0, day_std: float = 0.0) -> Evaluation:
    """Two groups of rows; the second is selected more often by `rise`, and days move it by `day_std`."""
    rng = np.random.default_rng(seed)
    names, place = np.repeat(["EWR", "JFK"], days * rows), np.tile(np.repeat(np.arange(days), rows), 2)
    moved = (
        np.repeat(np.array([0.0, rise]), days * rows) + rng.normal(0, day_std, (2, days))[(names == "JFK") * 1, place]
    )
    scores = np.where(rng.random(len(place)) < np.clip(0.3 + moved, 0, 1), 0.9, 0.1)
    labels = (rng.random(len(place)) < scores).astype(float)
    return judged(count_groups(names.tolist(), labels, scores, np.datetime64("2013-05-01") + place, threshold=0.5))


def test_rows_are_counted_by_group_and_day() -> None:
    days = np.array(["2013-05-01T03", "2013-05-01T23", "2013-05-02T00", "2013-05-02T01"], dtype="datetime64[h]")

    found = count_groups(["JFK", None, "JFK", "JFK"], [1, 0, 1, 0], [0.9, 0.8, 0.4, 0.5], days, threshold=0.5)

    assert set(found) == {"JFK", "(missing)"}
    assert found["(missing)"][date(2013, 5, 1)].selected == 1
    second = found["JFK"][date(2013, 5, 2)]
    assert (second.rows, second.selected, second.positives, second.true_positives) == (2, 1, 1, 0)
    assert second.loss_sum == pytest.approx(-np.log(0.4) - np.log(0.5))


def test_nobody_asks_by_default() -> None:
    assert not any(check.name.startswith("fairness") for check in decide(simulated(1), None, GateConfig()).checks)


def test_a_gap_that_is_proved_is_refused_and_says_who() -> None:
    (check,) = groups_are_close(simulated(1, rise=0.3), rules(max_selection_gap=0.1))

    assert not check.passed
    assert check.name == "fairness selection"
    assert check.figure == pytest.approx(0.3, abs=0.05)
    assert check.reason.startswith("origin JFK 0.599, EWR 0.304 of 2 groups: 0.295 apart")
    assert check.rule == "[gate.fairness].max_selection_gap = 0.1 with confidence = 0.9"


def test_a_gap_that_is_just_allowed_is_refused_no_more_often_than_the_confidence_says() -> None:
    """By `bench/gate.py` 8 to 13 in a hundred; days move the groups apart and together."""
    allowed = rules(max_selection_gap=0.2)
    candidates = [simulated(seed, 7, rise=0.2, day_std=0.15) for seed in range(100)]

    refused = [not check.passed for candidate in candidates for check in groups_are_close(candidate, allowed)]

    assert 3 <= sum(refused) <= 17


def test_true_positives_and_losses_have_bounds_of_their_own() -> None:
    checks = {c.name: c for c in groups_are_close(simulated(2), rules(max_true_positive_gap=0.1, max_loss_gap=0.1))}

    assert set(checks) == {"fairness true_positive", "fairness loss"}
    assert all(check.passed for check in checks.values())


def test_a_group_of_few_rows_is_not_compared_and_one_group_proves_nothing() -> None:
    candidate = simulated(3, days=3, rows=50)

    (check,) = groups_are_close(candidate, rules(max_selection_gap=1.0))

    assert not check.passed
    assert check.reason == "0 groups of origin have 300 rows to compare, two are needed"


def a_raw_spec(**tables: Any) -> dict[str, Any]:
    data = {
        "domain": "toy",
        "examples": "rows",
        "event_time": "at",
        "labels": "rows",
        "label": "y",
        "feature_service": "toy",
    }
    return {"model": {"name": "toy", "task": "binary", "owner": "us"}, "data": data | {"slices": ["origin"]}} | tables


@pytest.mark.parametrize(
    ("task", "fairness", "complaint"),
    [
        ("binary", {"column": "sex", "max_loss_gap": 0.1}, r"column 'sex' is not one of \[data\].slices \['origin'\]"),
        ("regression", {"column": "origin", "max_selection_gap": 0.1}, r"max_selection_gap: no use to"),
        ("binary", {"column": "origin", "max_selection_gp": 0.1}, "did you mean 'max_selection_gap'"),
    ],
)
def test_a_wrong_table_says_what_is_wrong(task: str, fairness: dict[str, Any], complaint: str) -> None:
    raw = a_raw_spec(gate={"fairness": fairness})
    raw["model"]["task"] = task
    with pytest.raises(SpecError, match=complaint):
        parse_spec(raw)
