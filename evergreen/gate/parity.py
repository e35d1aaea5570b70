"""Is what is served what is learnt from? Logged answers beside the same ones computed again.

A pure check over what `tasks/parity.py` counted. Law 2 says that a served row and the training row of its moment are equal;
where they are not, the held-out rows of a gate do not speak for the traffic, so the gate refuses. It also refuses where there
were answers and none could be computed again, as a feature service that is gone or broken makes it: nothing then shows that
law 2 holds. It decides nothing where there were none yet, and where all of those drawn brought their own features.
"""

from collections.abc import Iterator

from evergreen.spec import GateConfig
from evergreen.types import Check, Parity

NAMED_COLUMNS = 3


def answers_hold(parity: Parity, config: GateConfig) -> Iterator[Check]:
    """One check, with its reason also where nothing could be computed again."""
    allowed, passed = config.max_parity_mismatches, parity.share <= config.max_parity_mismatches
    rule = f"[gate].max_parity_mismatches = {allowed:g} with parity_tolerance = {config.parity_tolerance:g}"
    if parity.rows:
        reason = f"{_counted(parity)}, at most {allowed:.1%} allowed{_worst(parity)}"
    elif parity.unknown:
        rule, reason = f"{rule}: decides nothing", f"no answer was computed again: {parity.note}"
    else:
        passed, reason = False, _unshown(parity)
    yield Check(name="parity", passed=passed, figure=parity.share, rule=rule, reason=reason)


def _unshown(parity: Parity) -> str:
    return (
        f"none of the {parity.answers:,} logged answers of version {parity.version} could be computed again: {parity.note}. "
        "Mend that, or, where the champion's features are gone for good, set [gate].parity_rows = 0 for this retrain"
    )


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
