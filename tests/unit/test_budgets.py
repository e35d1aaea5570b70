import pytest

from evergreen.gate.budgets import answers_as_parent, faster_than_parent, within_budgets
from evergreen.spec import GateConfig
from evergreen.types import Footprint

FOOTPRINT = Footprint(size_bytes=2_500_000, p99_row_ms=4.0, rows=200)


def test_without_budgets_both_are_shown_and_decide_nothing() -> None:
    checks = list(within_budgets(FOOTPRINT, GateConfig()))

    assert [(check.name, check.passed, check.figure) for check in checks] == [
        ("artifact_size", True, 2.5),
        ("row_latency", True, 4.0),
    ]
    assert all("decides nothing" in check.rule for check in checks)


@pytest.mark.parametrize(("megabytes", "milliseconds"), [(2.5, 4.0), (2.4, 4.0), (2.5, 3.9)])
def test_what_is_above_its_budget_is_refused_with_both_figures(megabytes: float, milliseconds: float) -> None:
    size, latency = within_budgets(FOOTPRINT, GateConfig(max_artifact_mb=megabytes, max_row_ms=milliseconds))

    assert (size.passed, latency.passed) == (megabytes >= 2.5, milliseconds >= 4.0)
    assert size.reason == f"the artifact has 2.50 MB, at most {megabytes:g} MB allowed"
    assert "takes 4.00 ms at the 99th percentile of 200" in latency.reason


@pytest.mark.parametrize(("milliseconds", "passed"), [(0.90, True), (0.96, False), (1.2, False)])
def test_a_variant_that_is_not_clearly_faster_than_its_parent_is_refused(milliseconds: float, passed: bool) -> None:
    check = faster_than_parent(milliseconds, 1.0, rows=300)

    assert (check.passed, check.figure) == (passed, milliseconds)
    assert f"one row takes {milliseconds:.3f} ms, the parent's 1.000 ms" in check.reason


@pytest.mark.parametrize(
    ("furthest", "exact", "passed"), [(8e-8, True, True), (6e-2, True, False), (6e-2, False, True)]
)
def test_a_variant_that_only_runs_otherwise_has_its_parents_answers(furthest: float, exact: bool, passed: bool) -> None:
    check = answers_as_parent(furthest, rows=300, exact=exact)

    assert (check.passed, check.figure) == (passed, furthest)
    assert ("decides nothing" in check.rule) == (not exact)
