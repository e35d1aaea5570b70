"""Is what is served what is learnt from? Logged answers beside the same ones computed again.

A pure check over what `tasks/parity.py` counted. Law 2 says that a served row and the training row of its moment are equal;
where they are not, the held-out rows of a gate do not speak for the traffic, so the gate refuses.
"""

from collections.abc import Iterator

from evergreen.spec import GateConfig
from evergreen.types import Check, Parity

NAMED_COLUMNS = 3


def answers_hold(parity: Parity, config: GateConfig) -> Iterator[Check]:
    """One check; where nothing could be computed again it says why and decides nothing."""
    allowed = config.max_parity_mismatches
    rule = f"[gate].max_parity_mismatches = {allowed:g} with parity_tolerance = {config.parity_tolerance:g}"
    if not parity.rows:
        rule, reason = f"{rule}: decides nothing", f"no answer was computed again: {parity.note}"
    else:
        reason = f"{_counted(parity)}, at most {allowed:.1%} allowed{_worst(parity)}"
    yield Check(name="parity", passed=parity.share <= allowed, figure=parity.share, rule=rule, reason=reason)


def _counted(parity: Parity) -> str:
    told = (
        f"of {parity.rows:,} logged answers of version {parity.version}, computed again from offline features, "
        f"{parity.share:.1%} differ"
    )
    return told + (f" ({parity.behind:,} more were a refresh behind)" if parity.behind else "")


def _worst(parity: Parity) -> str:
    if not parity.mismatches:
        return ""
    columns = "".join(
        f"; {worst.column} in {worst.rows:,}, as in {worst.example_id}: logged {_cell(worst.logged)}, "
        f"offline {_cell(worst.offline)}"
        for worst in parity.columns[:NAMED_COLUMNS]
    )
    scores = (
        f"; in {parity.wrong_scores:,} the version itself says another score of the logged features"
        if parity.wrong_scores
        else ""
    )
    return f"{columns}{scores}; an example: {parity.example_id}"


def _cell(value: float | str | None) -> str:
    return "nothing" if value is None else f"{value:g}" if isinstance(value, float) else repr(value)
