"""The verdict's tables, tiles and badges as HTML. What comes from figures or names goes through `text`.

Called by `page.py`.
"""

from collections.abc import Iterable, Sequence
from html import escape

from evergreen.types import Attribution, Check, ColumnParity, Parity, Verdict
from evergreen.verdict.intervals import Interval, Row
from evergreen.verdict.summary import told


def text(value: object) -> str:
    """Safe in HTML."""
    return escape(str(value))


def badge(passed: bool, *, idle: bool = False) -> str:
    """The gate's word on one thing; an idle rule decides nothing."""
    word = "shown" if idle else "passed" if passed else "refused"
    return f'<span class="badge {word}">{word}</span>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Big figures with what they are of."""
    told_of = "".join(
        f'<div class="tile"><b>{text(figure)}</b><span>{text(what)}</span></div>' for figure, what in pairs
    )
    return f'<div class="tiles">{told_of}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """`rows` hold HTML; columns in `numbers` stand to the right."""
    kinds = ['class="n"' if place in numbers else "" for place in range(len(head))]
    first = "".join(f"<th {kind}>{text(name)}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'


def checks(found: Sequence[Check]) -> str:
    """Refusals first, each with its rule under its reason."""
    order = sorted(range(len(found)), key=lambda place: (found[place].passed, place))
    return table(
        ("", "check", "figure", "reason, and the rule"),
        (
            (
                badge(check.passed, idle=check.rule.endswith("decides nothing")),
                f'<span class="nowrap">{text(check.name)}</span>',
                f"{check.figure:,.4g}",
                f"{text(check.reason)}<br><small>{text(check.rule)}</small>",
            )
            for check in (found[place] for place in order)
        ),
        numbers=(2,),
    )


def figures(rows: Iterable[Row]) -> str:
    """Candidate, champion and change, with intervals."""
    return table(
        ("figure", "candidate", "champion, same rows", "change"),
        ((text(row.name), interval(row.mine), interval(row.theirs), interval(row.change, signed=True)) for row in rows),
        numbers=(1, 2, 3),
    )


def interval(one: Interval | None, *, signed: bool = False) -> str:
    """The figure, its interval in small type."""
    value, _, rest = told(one, signed=signed).partition(" (")
    return f"{value}<br><small>{rest.removesuffix(')')}</small>" if rest else value


def baselines(verdict: Verdict) -> str:
    """The plain models of the same rows, and what became of those that were not trained."""
    return table(
        ("plain model", verdict.evaluation.overall.loss_name, "note"),
        (
            (
                text(one.name),
                "—" if one.evaluation is None else one.evaluation.overall.told(one.evaluation.overall.loss, ".4f"),
                text(one.note),
            )
            for one in verdict.baselines.tried
        ),
        numbers=(1,),
    )


def attribution(found: Attribution) -> str:
    """What each feature is worth, the most first."""
    return table(
        ("feature", "rise", "standard error over days", "share"),
        (
            (
                text(one.feature),
                f"{one.rise:+.4f}",
                "—" if one.error is None else f"{one.error:.4f}",
                f"{found.shares[one.feature]:.0%}",
            )
            for one in found.features
        ),
        numbers=(1, 2, 3),
    )


def parity(found: Parity) -> str:
    """What was computed again, and the worst columns."""
    line = (
        f"{found.rows:,} of the {found.answers:,} answers version {found.version} gave from "
        f"{found.window.start:%-d %b %H:%M} to {found.window.end:%-d %b %Y %H:%M} UTC, drawn with seed {found.seed}: "
        f"{found.mismatches:,} differ, {found.behind:,} were answered from the newest refresh while a newer value was known, "
        f"{found.unknown:,} more brought their own features. The largest move of a score is {found.largest_move:.2g}."
    )
    said = f"<p>{text(line)}</p>" + (f'<p class="soft">{text(found.note)}</p>' if found.note else "")
    if not found.columns:
        return said
    return said + table(
        ("column", "answers", "one of them", "logged", "offline"), (_column(one) for one in found.columns), numbers=(1,)
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of what is known."""
    return (
        '<dl class="facts">'
        + "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
        + "</dl>"
    )


def _column(one: ColumnParity) -> tuple[str, ...]:
    cells = ("nothing" if cell is None else text(cell) for cell in (one.logged, one.offline))
    return (text(one.column), f"{one.rows:,}", text(one.example_id), *cells)
