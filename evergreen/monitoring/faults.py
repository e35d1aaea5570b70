"""Is the data broken? Faults alarm at once, name the column and the hour, and block a retrain rather than start one.

Drift is the world changing; a fault is a feed, a unit or a join that broke. Each rule compares the hours of a window
with what the reference does by itself, so what is usual for a column (a gust that is mostly empty, a category that is
rare) is no fault. Nothing here has a threshold in units of a column.

- *missing*: more of the column is missing, over some hours, than the reference's stretches of equal length explain.
- *stale*: the same, for a feature view whose values were too old to be used.
- *unit*: values lie far outside the reference's range; or they jump between two hours further than they ever did, none
  of them among those before, and stay; or between two days, to where a known conversion of units would put them.
- *vanished*: a category that came all the time no longer comes, and a newcomer takes its place, or it was a common one.
- *constant*: one value is repeated for longer than the reference ever did.
- *late*: a feature table has been silent for several times its longest silence (`late_feeds`).

Pure over frames with `event_timestamp`. Called by the watch task. To add a rule, write a function that yields `Fault`s
and call it in `find_faults`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError
from evergreen.monitoring.hours import HOUR, Hours, longest_run, moment_of, numbers_of, worst_stretch
from evergreen.monitoring.sketch import Kind
from evergreen.monitoring.units import unit_jump
from evergreen.monitoring.windows import require_columns
from evergreen.types import Fault

REFERENCE_ROWS = 200_000
"""The newest rows of the reference are enough to know what is usual, and bound what a check costs."""
ROOM = 0.02
"""A share of bad rows may be this much above the reference's worse days (the worst tenth) before its excess counts."""
LEAST_EXCESS_DAYS = 0.1
"""Excess that is always let pass, in days' worth of rows."""
BEYOND = 2.0
"""and beyond what the reference's stretches did: this many times their excess."""
LEAST_EXPECTED = 30
"""Rows of a category that must have been due since it last came."""
SILENCE = 3.0
"""A category, a constant or a table may be silent for this many times the reference's longest silence."""
COMMON = 0.05
"""A category of a smaller share of the rows may stay away: what is rare comes and goes with the season."""
LEAST_RUN = 200
"""Rows of one value that are always let pass."""
FAR = 5.0
"""How many times the width of the reference's range a value must be outside of it: storms leave a range too."""


def find_faults(
    reference: pd.DataFrame, recent: pd.DataFrame, current: pd.DataFrame, inputs: Mapping[str, Kind]
) -> tuple[Fault, ...]:
    """Faults that show in the rows of `current`.

    All three have `event_timestamp` and the columns of `inputs`; where there is a column `stale`, the names of views
    whose values were too old, staleness is judged too. `recent` is what came right before the window (it may be empty):
    without it a fault that begins with the window has no before. A view that some rows never have (a new customer has
    no history) was stale for them before too, so staleness is held beside `recent` where that tells of it, and not
    judged where there is no row before the window. Raises `DataError` where the reference or the window is empty or
    lacks a column.
    """
    for name, frame in (("reference", reference), ("window", current)):
        require_columns(frame, ("event_timestamp", *inputs))
        if frame.empty:
            raise DataError(f"the {name} of a check for data faults has no rows; choose a window that has some")
    usual = reference.sort_values("event_timestamp", kind="stable").iloc[-REFERENCE_ROWS:]
    both = pd.concat([part for part in (recent, current) if not part.empty], ignore_index=True)
    now = both.sort_values("event_timestamp", kind="stable", ignore_index=True)
    start = pd.Timestamp(current["event_timestamp"].min()).floor("h")
    before, after = Hours.of(usual), Hours.of(now)
    found: list[Fault] = []
    for name, kind in inputs.items():
        absent = [frame[name].isna().to_numpy() for frame in (usual, now)]
        found += _too_many("missing", name, before, after, absent[0], absent[1], start, "is missing in")
        if kind == "categorical":
            found += _vanished(name, usual, now, start)
        else:
            numbers = [numbers_of(frame[name]) for frame in (usual, now)]
            found += _constant(name, after, numbers[0], numbers[1], start)
            found += _out_of_range(name, before, after, numbers[0], numbers[1], start)
            jump = unit_jump(before, after, numbers[0], numbers[1], start)
            if jump is not None:
                found.append(_fault("unit", name, jump.since, jump.size, jump.largest, jump.words))
    if not recent.empty:
        asked = recent if "stale" in recent else usual
        found += _stale(asked, now, Hours.of(asked), after, start)
    return tuple(found)


def late_feeds(moments: Mapping[str, Sequence[datetime]], as_of: datetime) -> tuple[Fault, ...]:
    """Tables that say nothing for `SILENCE` times as long as they ever did; `moments` are when their rows became known."""
    found = []
    for table, known in moments.items():
        seen = np.unique(np.array([m.astimezone(UTC).replace(tzinfo=None) for m in known], dtype="datetime64[us]"))
        seen = seen[seen <= np.datetime64(as_of.astimezone(UTC).replace(tzinfo=None))]
        if len(seen) < 3:
            continue
        longest = timedelta(microseconds=int(np.diff(seen).max().astype(np.int64)))
        newest = seen[-1].item().replace(tzinfo=UTC)
        silence, allowed = as_of - newest, SILENCE * longest
        if silence > allowed:
            hours = (silence / HOUR, allowed / HOUR, longest / HOUR)
            words = f"nothing new for {hours[0]:.0f} hours, before at most {hours[2]:.1f}"
            found.append(_fault("late", table, newest + longest, hours[0], hours[1], words))
    return tuple(found)


def _too_many(
    kind: str,
    name: str,
    before: Hours,
    after: Hours,
    bad_before: NDArray[np.bool_],
    bad_now: NDArray[np.bool_],
    start: pd.Timestamp,
    verb: str,
) -> Iterator[Fault]:
    """Bad rows beyond what the reference's stretches explain; the stretch with most of them is the fault's."""
    if not bad_now.any():
        return
    limit = float(np.quantile(before.day_shares(bad_before), 0.9)) + ROOM
    hours = after.since(start)
    usual = before.stretches(bad_before, limit, hours.days)
    counts = after.counts(bad_now)[after.at_least(start)]
    stretch = worst_stretch(hours, counts, limit)
    allowed = max(LEAST_EXCESS_DAYS, BEYOND * usual)
    if stretch is not None and stretch.excess / hours.rows_a_day > allowed:
        # Halfway between what is usual and what was found, the hours before it began do not count as its own.
        stretch = worst_stretch(hours, counts, (limit + stretch.share) / 2) or stretch
        words = f"{verb} {stretch.share:.0%} of {stretch.rows:,} rows, in the reference's worse days {limit - ROOM:.0%}"
        yield _fault(kind, name, stretch.first, stretch.share, limit, words)


def _stale(usual: pd.DataFrame, now: pd.DataFrame, before: Hours, after: Hours, start: pd.Timestamp) -> Iterator[Fault]:
    if "stale" not in now:
        return
    views = sorted({view for listed in now["stale"] if isinstance(listed, list | tuple) for view in listed})
    for view in views:
        lists = [frame["stale"] if "stale" in frame else pd.Series([()] * len(frame)) for frame in (usual, now)]
        bad = [np.array([isinstance(v, list | tuple) and view in v for v in listed]) for listed in lists]
        yield from _too_many("stale", view, before, after, bad[0], bad[1], start, "was too old to use in")


def _out_of_range(
    name: str,
    before: Hours,
    after: Hours,
    usual: NDArray[np.float64],
    now: NDArray[np.float64],
    start: pd.Timestamp,
) -> Iterator[Fault]:
    known = usual[~np.isnan(usual)]
    if not len(known) or known.min() == known.max():
        return
    room = FAR * (known.max() - known.min())
    low, high = known.min() - room, known.max() + room
    with np.errstate(invalid="ignore"):
        outside = [(values < low) | (values > high) for values in (usual, now)]
    words = f"lies outside [{low:.3g}, {high:.3g}], far beyond the reference's range, in"
    yield from _too_many("unit", name, before, after, outside[0], outside[1], start, words)


def _constant(
    name: str, after: Hours, usual: NDArray[np.float64], now: NDArray[np.float64], start: pd.Timestamp
) -> Iterator[Fault]:
    known = usual[~np.isnan(usual)]
    if not len(known) or known.min() == known.max():
        return
    place = np.flatnonzero(~np.isnan(now) & (after.moments >= start.to_datetime64()))
    if not len(place):
        return
    allowed = max(SILENCE * longest_run(known)[0], LEAST_RUN)
    length, first = longest_run(now[place])
    if length > allowed:
        words = (
            f"is {now[place[first]]:.6g} in {length:,} rows running, in the reference at most {allowed / SILENCE:,.0f}"
        )
        yield _fault("constant", name, moment_of(after.moments[place[first]]), float(length), allowed, words)


def _vanished(name: str, usual: pd.DataFrame, now: pd.DataFrame, start: pd.Timestamp) -> Iterator[Fault]:
    moments = now["event_timestamp"].to_numpy(dtype="datetime64[us]")
    began = int(np.searchsorted(moments, start.to_datetime64()))
    shares = usual[name].value_counts(normalize=True)
    values, past = now[name].to_numpy(dtype=object), usual[name].to_numpy(dtype=object)
    known = set(shares.index)
    for category, share in shares[shares * len(now) >= LEAST_EXPECTED].items():
        edges = np.concatenate([[-1], np.flatnonzero(values == category), [len(now)]])
        gaps = np.diff(edges) - 1
        gaps[edges[1:] <= began] = 0  # over before the window begins
        widest = int(gaps.argmax())
        longest = np.diff(np.concatenate([[-1], np.flatnonzero(past == category), [len(past)]])).max() - 1
        allowed = max(SILENCE * longest, LEAST_EXPECTED / share)
        if gaps[widest] <= allowed:
            continue
        gap = slice(edges[widest] + 1, edges[widest + 1])
        strange = pd.Series(values[gap]).value_counts()
        strange = strange[[value not in known for value in strange.index]]
        renamed = not strange.empty and strange.iloc[0] >= share * gaps[widest] / 2
        if not renamed and share < COMMON:
            continue
        instead = f"; {strange.index[0]!r} came instead" if renamed else ""
        words = (
            f"{category!r} did not come in {gaps[widest]:,} rows, of which {share * gaps[widest]:.0f} were due{instead}"
        )
        yield _fault("vanished", name, moment_of(moments[gap][0]), float(gaps[widest]), float(allowed), words)


def _fault(kind: str, column: str, since: datetime, figure: float, limit: float, words: str) -> Fault:
    hour = since.replace(minute=0, second=0, microsecond=0)
    return Fault.model_validate(
        {
            "kind": kind,
            "column": column,
            "since": hour,
            "figure": figure,
            "limit": limit,
            "reason": f"{column}: {words}; first in the hour of {hour:%Y-%m-%d %H:%M}",
        }
    )
