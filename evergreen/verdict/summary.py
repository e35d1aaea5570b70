"""The verdict in a few lines of markdown: what a run's page shows before anybody opens the whole one."""

from collections.abc import Iterator

from evergreen.types import Check, Verdict
from evergreen.verdict.intervals import Interval, Row, figure_rows

MAIN_FIGURES = 3
LEADING_FEATURES = 5


def summary(verdict: Verdict, link: str) -> str:
    """Word, main figures with intervals, refusals, and the address of the whole page."""
    version, decision = verdict.version, verdict.decision
    word = "passed its gate" if decision.passed else "was refused"
    parts = [
        f"# {version.model} version {version.version} {word}",
        headline(verdict),
        _figures(verdict),
        *_refusals(decision.checks),
        *_features(verdict),
        f"[The whole verdict]({link}): figures with intervals, every check, day by day, slices, lineage.",
    ]
    return "\n\n".join(parts) + "\n"


def headline(verdict: Verdict) -> str:
    """One sentence: how it stands to the champion on how much."""
    mine, champion = verdict.evaluation, verdict.champion
    judged = f"{mine.overall.rows:,} held-out rows of {mine.days} days"
    if champion is None:
        loss = mine.overall.told(mine.overall.loss, ".4f")
        return f"There was no champion to beat: {mine.overall.loss_name} {loss} on {judged}."
    row = next(figure_rows(mine, champion, verdict.confidence))
    assert row.change is not None
    share = row.change.value / champion.overall.loss if champion.overall.loss else 0.0
    side = "lower than" if row.change.value < 0 else "higher than" if row.change.value > 0 else "off"
    who = f"version {verdict.champion_version}'s" if verdict.champion_version else "the champion's"
    sure = ""
    if row.change.low is not None and row.change.high is not None:
        sure = (
            ", and the days prove that it fell"
            if row.change.high < 0
            else ", and the days prove that it rose"
            if row.change.low > 0
            else ", which the days prove neither way"
        )
    return f"Its {mine.overall.loss_name} is {abs(share):.1%} {side} {who} on the same {judged}{sure}."


def told(one: Interval | None, digits: int = 4, *, signed: bool = False) -> str:
    """A figure with its interval, or a dash."""
    if one is None:
        return "—"
    form = f"{'+' if signed else ''}.{digits}f" if abs(one.value) < 100 else f"{'+' if signed else ''},.4g"
    value = format(one.value, form)
    if one.low is not None and one.high is not None:
        return f"{value} ({format(one.low, form)} to {format(one.high, form)})"
    return f"{value} (at least {format(one.low, form)})" if one.low is not None else value


def _figures(verdict: Verdict) -> str:
    rows = list(figure_rows(verdict.evaluation, verdict.champion, verdict.confidence))[:MAIN_FIGURES]
    head = "| figure | candidate | champion, same rows | change |\n|---|---|---|---|\n"
    return head + "\n".join(_figure(row) for row in rows)


def _figure(row: Row) -> str:
    return f"| {row.name} | {told(row.mine)} | {told(row.theirs)} | {told(row.change, signed=True)} |"


def _refusals(checks: tuple[Check, ...]) -> Iterator[str]:
    wrong = [check for check in checks if not check.passed]
    if wrong:
        yield "**Refused, because**\n\n" + "\n".join(f"- *{c.name}*: {c.reason} (`{c.rule}`)" for c in wrong)
    else:
        yield f"All {len(checks)} checks passed."


def _features(verdict: Verdict) -> Iterator[str]:
    found = verdict.evaluation.attribution
    if found is not None and found.features:
        leading = ", ".join(f"`{one.feature}` {one.rise:+.4f}" for one in found.features[:LEADING_FEATURES])
        yield f"It leans on (rise of the loss when shuffled): {leading}."
