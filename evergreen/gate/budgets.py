"""What a candidate may weigh: bytes of its artifact, and milliseconds to score one row as serving does; and its variants.

Pure checks over what `tasks/gate.py` and `tasks/optimise.py` measured; they join the checks of `decision.py` in one verdict.
To add a budget, measure it in `Footprint` and yield a `Check` here.
"""

from collections.abc import Iterator

from evergreen.spec import GateConfig
from evergreen.types import Check, Footprint

MUST_SAVE = 0.95
"""Timings of two equal models differ by some percent."""
ROUNDING = 1e-4
"""Sums in another order come to 1e-6; a wrong program to 1e-2."""


def within_budgets(footprint: Footprint, rules: GateConfig) -> Iterator[Check]:
    """A check each; shown, and deciding nothing, where the model's file sets no budget."""
    megabytes, allowed = footprint.size_bytes / 1e6, rules.max_artifact_mb
    yield Check(
        name="artifact_size",
        passed=allowed is None or megabytes <= allowed,
        figure=megabytes,
        rule=_rule("max_artifact_mb", allowed),
        reason=f"the artifact has {megabytes:.2f} MB" + (f", at most {allowed:g} MB allowed" if allowed else ""),
    )
    milliseconds, allowed = footprint.p99_row_ms, rules.max_row_ms
    yield Check(
        name="row_latency",
        passed=allowed is None or milliseconds <= allowed,
        figure=milliseconds,
        rule=_rule("max_row_ms", allowed),
        reason=f"scoring one row takes {milliseconds:.2f} ms at the 99th percentile of {footprint.rows:,}"
        + (f", at most {allowed:g} ms allowed" if allowed else ""),
        timed=True,
    )


def faster_than_parent(variant_ms: float, parent_ms: float, rows: int) -> Check:
    """An optimised variant has to be faster than the version whose weights it runs; both timed alternately, in medians."""
    return Check(
        name="faster_than_parent",
        passed=variant_ms < MUST_SAVE * parent_ms,
        figure=variant_ms / parent_ms,
        rule=f"at most {MUST_SAVE:.0%} of the parent's time for one row",
        reason=f"one row takes {variant_ms:.3f} ms, the parent's {parent_ms:.3f} ms (medians of {rows:,})",
        timed=True,
    )


def answers_as_parent(furthest: float, rows: int, exact: bool) -> Check:
    """A variant that rounds as its parent does has to give its parent's answers, which no mean over them could tell.

    `furthest` is the largest difference, as a share of the parent's largest answer. Decides nothing where the variant is
    meant to differ (`exact` is false): what that costs is the other checks' to say.
    """
    return Check(
        name="answers_as_parent",
        passed=not exact or furthest <= ROUNDING,
        figure=furthest,
        rule=f"at most {ROUNDING:g} of the largest answer" if exact else "rounds otherwise on purpose: decides nothing",
        reason=f"answers are up to {furthest:.2g} from the parent's, of {rows:,} rows scored together",
    )


def _rule(key: str, allowed: float | None) -> str:
    return f"[gate].{key} = {allowed:g}" if allowed is not None else f"[gate].{key} unset: decides nothing"
