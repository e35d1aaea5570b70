"""The verdict's page from top to bottom: word and reasons, main figures, checks, day by day, calibration, slices, what the
model leans on, groups, parity, lineage.

Called by `tasks/verdict.py` through `render`. A section that has nothing to say is left out.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

from evergreen.types import GroupDay, Verdict
from evergreen.verdict import charts, tables
from evergreen.verdict.intervals import Interval, day_changes, figure_rows, slice_changes
from evergreen.verdict.summary import headline
from evergreen.verdict.tables import text

STYLE = Path(__file__).with_name("page.css")
LEADING_FEATURES = 20
DRAWN_SLICES = 24


def render(verdict: Verdict) -> str:
    """One HTML file that needs no other."""
    version = verdict.version
    title = f"{version.model} version {version.version}: {'passed' if verdict.decision.passed else 'refused'}"
    sections = (
        _head(verdict),
        _tiles(verdict),
        *_days(verdict),
        f"<h2>Figures</h2>{_figures(verdict)}",
        f'<h2>Checks</h2><div class="card">{tables.checks(verdict.decision.checks)}</div>',
        *_calibration(verdict),
        *_slices(verdict),
        *_attribution(verdict),
        *_groups(verdict),
        *_parity(verdict),
        f'<h2>Where it comes from</h2><div class="card">{_lineage(verdict)}</div>',
        "<footer>Every figure stands in verdict.json beside this page. Intervals have days for their unit and are two-sided at "
        f"{2 * verdict.confidence - 1:.0%}: each end is the bound of a one-sided rule at {verdict.confidence:.0%}. The version's "
        "seal covers its artifact and gate.json, the checks with their figures, rules and reasons; this page and verdict.json "
        "repeat them and are not sealed.</footer>",
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>"
    )


def _head(verdict: Verdict) -> str:
    version, passed, data = verdict.version, verdict.decision.passed, verdict.candidate.training_set
    word = "may take traffic" if passed else "was refused: the champion stays"
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in verdict.decision.reasons)
    why = f'<div class="card refusal"><h3>Why it was refused</h3><ul>{reasons}</ul></div>' if reasons else ""
    return (
        f'<header><p class="soft">The gate · {text(verdict.owner)} · asked for by {text(verdict.cause)} · as of '
        f"{data.as_of:%-d %B %Y %H:%M} UTC</p>"
        f"<h1>{text(version.model)} version {version.version} {word} {tables.badge(passed)}</h1>"
        f'<p class="lead">{text(headline(verdict))}</p></header>{why}'
    )


def _tiles(verdict: Verdict) -> str:
    mine, champion = verdict.evaluation.overall, verdict.champion
    loss = next(figure_rows(verdict.evaluation, champion, verdict.confidence))
    pairs = [(mine.told(mine.loss, ".4f"), f"{mine.loss_name} of the candidate")]
    if champion is not None and loss.change is not None:
        pairs.append((champion.overall.told(champion.overall.loss, ".4f"), f"{mine.loss_name} of the champion"))
        if loss.change.high is not None:
            bound = champion.overall.told(loss.change.high, "+.4f")
            pairs.append((bound, f"is the most it rises, with {verdict.confidence:.0%} confidence"))
    if "auc" in mine.figures:
        pairs.append((f"{mine['auc']:.3f}", "AUC"))
    pairs.append((f"{mine['calibration_error']:.3f}", "calibration error"))
    pairs.append((f"{mine.rows:,}", f"held-out rows of {verdict.evaluation.days} days"))
    if verdict.footprint is not None:
        pairs.append(
            (f"{verdict.footprint.p99_row_ms:.2f} ms", f"a row at p99, {verdict.footprint.size_bytes / 1e6:.2f} MB")
        )
    checks = verdict.decision.checks
    pairs.append((f"{sum(check.passed for check in checks)} of {len(checks)}", "checks passed"))
    return tables.tiles(pairs)


def _days(verdict: Verdict) -> Iterator[str]:
    if verdict.champion is None:
        return
    loss = next(figure_rows(verdict.evaluation, verdict.champion, verdict.confidence))
    assert loss.change is not None
    margin = next((c for c in verdict.decision.checks if c.name == "not_worse_than_champion"), None)
    allowed = None if margin is None else _allowed(verdict, margin.rule)
    drawn = charts.day_bars(day_changes(verdict.evaluation, verdict.champion), loss.change, allowed)
    yield (
        f'<h2>Day by day</h2><div class="card"><p class="soft">Change of the {text(loss.name)} over the champion on the same '
        f"rows; below 0 the candidate was better that day. The band is the interval of the mean.</p>{drawn}</div>"
    )


def _allowed(verdict: Verdict, rule: str) -> float | None:
    """The margin the rule names, in this loss."""
    value = rule.partition("= ")[2].split(" ")[0]
    return verdict.champion.overall.allowance(float(value)) if verdict.champion is not None and value else None


def _figures(verdict: Verdict) -> str:
    shown = tables.figures(figure_rows(verdict.evaluation, verdict.champion, verdict.confidence))
    plain = f"<h3>Plain models on the same rows</h3>{tables.baselines(verdict)}" if verdict.baselines.tried else ""
    return f'<div class="card">{shown}</div>' + (f'<div class="card">{plain}</div>' if plain else "")


def _calibration(verdict: Verdict) -> Iterator[str]:
    mine = verdict.evaluation.reliability
    if not mine:
        return
    theirs = verdict.champion.reliability if verdict.champion else ()
    legend = '<span class="key candidate">candidate</span>' + (
        '<span class="key champion">champion</span>' if theirs else ""
    )
    rows = ((f"{b.mean_score:.1%}", f"{b.share:.1%}", f"{b.mean_score - b.share:+.1%}", f"{b.rows:,}") for b in mine)
    bins = tables.table(("said", "came true", "gap", "rows"), rows, numbers=(0, 1, 2, 3))
    yield (
        '<h2>Does it mean what it says?</h2><div class="card pair"><div>'
        f'<p class="soft">What came true beside what was said; a dot\'s area goes with its rows. {legend}</p>'
        f"{charts.reliability(mine, theirs)}</div><div>{bins}</div></div>"
    )


def _slices(verdict: Verdict) -> Iterator[str]:
    if verdict.champion is None or not verdict.evaluation.slices:
        return
    changes = slice_changes(verdict.evaluation, verdict.champion, verdict.confidence)
    judged = {check.name.removeprefix("slice ") for check in verdict.decision.checks if check.name.startswith("slice ")}
    found = [change for change in changes if change[0] in judged]
    shown, undrawn, too_small = found[:DRAWN_SLICES], len(found[DRAWN_SLICES:]), len(changes) - len(found)
    if not shown:
        return
    left_out = f" {undrawn} more that were judged are not drawn." if undrawn else ""
    left_out += f" {too_small} more have too few rows to be judged." if too_small else ""
    drawn = charts.forest([(name, f"{rows:,} rows", change) for name, rows, change in shown])
    yield (
        f'<h2>Slices</h2><div class="card"><p class="soft">Change of the {text(verdict.evaluation.overall.loss_name)} over the '
        f"champion, the worst first, each with its own interval (the checks correct for their number).{left_out}</p>{drawn}</div>"
    )


def _attribution(verdict: Verdict) -> Iterator[str]:
    found = verdict.evaluation.attribution
    if found is None or not found.features:
        return
    leading = found.features[:LEADING_FEATURES]
    rows = [(one.feature, f"{found.shares[one.feature]:.0%}", _rise(one.rise, one.error)) for one in leading]
    rest = len(found.features) - len(leading)
    more = f" {rest} more are worth less; the table has all." if rest else ""
    yield (
        f'<h2>What it leans on</h2><div class="card"><p class="soft">Rise of the {text(verdict.evaluation.overall.loss_name)} when '
        f"one feature is shuffled among {found.rows:,} held-out rows of {found.days} days (whiskers: two standard errors over "
        f"days), and its share of all rises. Features that say the same stand in for each other.{more}</p>"
        f'{charts.forest(rows, better_below=False)}</div><div class="card">{tables.attribution(found)}</div>'
    )


def _rise(rise: float, error: float | None) -> Interval:
    return Interval(rise) if error is None else Interval(rise, rise - 2 * error, rise + 2 * error)


def _groups(verdict: Verdict) -> Iterator[str]:
    groups = verdict.evaluation.groups
    if not groups:
        return
    binary = verdict.evaluation.overall.task == "binary"
    head = ("group", "rows", "mean loss", *(("selected", "true positives") if binary else ()))
    shown = tables.table(
        head, (_group(name, days, binary) for name, days in groups.items()), numbers=range(1, len(head))
    )
    yield f'<h2>Groups</h2><div class="card">{shown}</div>'


def _group(name: str, days: dict[date, GroupDay], binary: bool) -> tuple[str, ...]:
    rows, positives = sum(day.rows for day in days.values()), sum(day.positives for day in days.values())
    cells = (text(name), f"{rows:,}", f"{sum(day.loss_sum for day in days.values()) / rows:.4g}")
    if not binary:
        return cells
    hits = sum(day.true_positives for day in days.values())
    selected = sum(day.selected for day in days.values()) / rows
    return (*cells, f"{selected:.1%}", f"{hits / positives:.1%} of {positives:,}" if positives else "—")


def _parity(verdict: Verdict) -> Iterator[str]:
    if verdict.parity is not None:
        yield f'<h2>Is it served as it learns?</h2><div class="card">{tables.parity(verdict.parity)}</div>'


def _lineage(verdict: Verdict) -> str:
    candidate, data = verdict.candidate, verdict.candidate.training_set
    learnt = data.rows - data.holdout_rows
    return tables.facts(
        (
            ("learnt from", f"{learnt:,} rows, {data.window.start:%-d %b %Y} to {data.holdout.start:%-d %b %Y}"),
            (
                "judged on",
                f"{data.holdout_rows:,} rows, {data.holdout.start:%-d %b %Y} to {data.holdout.end:%-d %b %Y}",
            ),
            ("features", f"{len(data.features)} of {data.feature_service}"),
            ("data", data.digest),
            ("spec", candidate.spec_digest),
            ("code", candidate.code_revision),
            ("seed", str(candidate.seed)),
            ("training", f"{candidate.steps:,} steps in {candidate.seconds:.1f} s on {candidate.ranks} ranks"),
            ("cost", str(candidate.cost or "not told")),
            ("artifact", candidate.digest),
            ("MLflow run", verdict.version.run_id),
        )
    )
