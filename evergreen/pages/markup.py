"""Figures → HTML: what every page is put together from. Whatever was not written here is escaped.

Pure text. Called by the pages.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from evergreen.pages.chart import STYLE, day


def page(title: str, sections: Iterable[str]) -> str:
    """A whole, self-contained file that asks nobody for anything; `sections` are HTML."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>"
    )


def tiles_of(tiles: Iterable[tuple[str, str]]) -> str:
    """A figure and what it is, of each."""
    told = "".join(f'<div class="tile"><b>{figure}</b><span>{what}</span></div>' for figure, what in tiles)
    return f'<div class="tiles">{told}</div>'


def table(heads: Sequence[str], rows: Iterable[str], kind: str = "plain") -> str:
    """A card with a table that scrolls where it is too wide; a head that begins with `#` is of numbers."""
    head = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in heads)
    return (
        f'<div class="card scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def badge(kind: str, told: str | None = None) -> str:
    """A word in a frame; its colour comes from its kind."""
    return f'<span class="badge {text(kind)}">{text(told or kind)}</span>'


def figure(value: float | None, digits: int) -> str:
    """A dash where there is none."""
    return "—" if value is None else f"{value:.{digits}f}"


def paragraphs(lines: Iterable[str]) -> str:
    """A paragraph a line; a dash where there are none."""
    return paragraphs_html(text(line) for line in lines)


def paragraphs_html(lines: Iterable[str]) -> str:
    """The same of lines that are HTML."""
    return "".join(f"<p>{line}</p>" for line in lines) or "—"


def date(moment: datetime) -> str:
    """`1 Apr 2013`."""
    return f"{day(moment)} {moment.year}"


def text(value: object) -> str:
    """Escaped."""
    return escape(str(value))
