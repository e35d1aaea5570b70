"""The verdict as a page a person reads: `Verdict` → one self-contained HTML file, and the few lines a run shows.

Pure text from figures: no clock, no model, no script, nothing fetched. Refusals have theirs like the others. Called by
`tasks/verdict.py`. `page.py` is the page from top to bottom; to show more, write a function that returns HTML and call it
there. `charts.py` draws, `intervals.py` says how sure each figure is.
"""

from evergreen.verdict.intervals import day_changes
from evergreen.verdict.page import render
from evergreen.verdict.summary import summary

__all__ = ["day_changes", "render", "summary"]
