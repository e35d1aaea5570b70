"""No slice may pay for a better average: a check a slice, corrected for their number.

Called by `decision.py`; slices are the values of the columns in `[data].slices`.
"""

from collections.abc import Iterator

from evergreen.errors import DataError
from evergreen.gate.champion import beside
from evergreen.paired import holm, paired_difference
from evergreen.spec import GateConfig
from evergreen.types import Check, Evaluation, Scores


def slices_hold(candidate: Evaluation, champion: Evaluation, rules: GateConfig) -> Iterator[Check]:
    """A check a slice of enough rows; a better average does not excuse a worse slice.

    A slice is refused when it rose by more than is allowed and the rise is proved. Small slices scatter, and of many some
    always look worse, so the proofs are corrected for their number: of equal models at most 1 - `confidence` lose a slice.
    """
    judged: dict[str, tuple[Scores, Scores]] = {}
    for name, theirs in sorted(champion.slices.items()):
        mine = candidate.slices.get(name)
        if mine is None or mine.rows != theirs.rows:
            raise DataError(
                f"slice {name} has {theirs.rows:,} rows for the champion and {mine.rows if mine else 0:,} for the "
                "candidate: score both on the same rows with the same [data].slices"
            )
        if mine.rows >= rules.min_slice_rows:
            judged[name] = mine, theirs
    rises = {name: paired_difference(mine, theirs) for name, (mine, theirs) in judged.items()}
    corrected = holm([rise.p_not_worse() for rise in rises.values()])
    for (name, (mine, theirs)), p in zip(judged.items(), corrected, strict=True):
        yield _slice_holds(name, mine, theirs, rises[name].mean, p, rules)


def _slice_holds(name: str, mine: Scores, theirs: Scores, rise: float, p: float, rules: GateConfig) -> Check:
    proved, allowed = p <= 1 - rules.confidence, theirs.allowance(rules.max_slice_loss)
    return Check(
        name=f"slice {name}",
        passed=rise <= allowed or not proved,
        figure=rise,
        rule=f"[gate].max_slice_loss = {rules.max_slice_loss:g} with confidence = {rules.confidence:g} (Holm), "
        f"min_slice_rows = {rules.min_slice_rows:,}",
        reason=f"slice {name}: {beside(mine, theirs)}, may rise {theirs.told(allowed)}; "
        f"that it rises is {'' if proved else 'not '}proved ({'p < 0.001' if p < 0.001 else f'p {p:.3f}'})",
    )
