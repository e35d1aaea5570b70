import json
import math
from typing import Any

import pytest

from serving.faults import MOST_CHARACTERS, MOST_FAULTS, MOST_ITEMS, echoed, told


def deep(levels: int) -> Any:
    return [] if not levels else [deep(levels - 1)]


@pytest.mark.parametrize("given", [None, True, 7, 2**63 - 1, 0.5, "é", ["UA", 1], {"a": {"b": None}}])
def test_what_is_short_and_can_be_encoded_is_repeated(given: Any) -> None:
    assert echoed(given) == given


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (10**400, "a whole number of 1329 bits"),
        ("\ud800", "\\ud800"),
        ({"\ud800": math.inf}, {"\\ud800": "inf"}),
        ("a" * 1_000, "a" * MOST_CHARACTERS + "…"),
        ([1] * 1_000, [1] * MOST_ITEMS + ["…"]),
        (deep(500), [[["…"]]]),
        (ValueError("why"), "why"),
    ],
)
def test_what_is_not_is_stood_for(given: Any, shown: Any) -> None:
    assert echoed(given) == shown


def test_a_mapping_is_cut_where_it_is_long() -> None:
    assert len(echoed({str(number): number for number in range(1_000)})) == MOST_ITEMS + 1


def test_faults_keep_their_place_and_message_and_are_not_without_end() -> None:
    fault = {"type": "t", "loc": ("body", "rows", 0, "a\ud800"), "msg": "no", "input": math.nan, "ctx": {"le": 1}}

    shown = told([fault] * 1_000)

    assert len(shown) == MOST_FAULTS
    assert shown[0] == {
        "type": "t",
        "loc": ["body", "rows", 0, "a\\ud800"],
        "msg": "no",
        "input": "nan",
        "ctx": {"le": 1},
    }
    assert json.dumps(shown, allow_nan=False)
