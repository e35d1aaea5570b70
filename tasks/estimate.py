"""What can be said before the outcomes are in, and later how right it was."""

from datetime import datetime

import pandas as pd
from prefect import get_run_logger, task

from evergreen.monitoring.censoring import censored_performance
from evergreen.monitoring.estimate import UNAVAILABLE, estimate_performance, truth_and_scores
from evergreen.monitoring.intervals import blocks, figures_by_days
from evergreen.monitoring.performance import waits_for_labels
from evergreen.monitoring.windows import in_window, known_before, newest, searched
from evergreen.spec import ModelSpec
from evergreen.types import PerformanceReport, Window, WindowEstimate
from evergreen.wiring import Wiring, wiring

MOST_OPEN = 500
"""Estimates that are looked through for windows whose outcomes are in now."""
PATIENCE = 4
"""How many times as far back as a mature window is searched for an estimate still waits for its outcomes."""


@task(retries=2, retry_delay_seconds=5)
def estimate_newest(spec: ModelSpec, as_of: datetime) -> WindowEstimate | None:
    """Say what the newest window's figures are before its outcomes say so, and hold what was said before beside what came.

    None where there is no champion or it answered nothing in the newest window. What was said once of a window stands.
    """
    wire = wiring()
    said = estimate_window(wire, spec, as_of)
    reconciled = reconcile(wire, spec, as_of)
    get_run_logger().info("estimated: %s; %s windows reconciled", _told(said), reconciled)
    return said


def estimate_window(wire: Wiring, spec: ModelSpec, as_of: datetime) -> WindowEstimate | None:
    """What `estimate_newest` says, and records."""
    window, where = newest(as_of, spec.monitor), searched(as_of, spec.monitor)
    with wire.records() as records:
        release = records.releases.current(spec.name)
        if release is None or release.champion is None:
            return None
        frame = records.predictions.answers(spec.name, where, as_of)
    mine = frame[frame["version"] == release.champion]
    served = in_window(mine, window)
    if served.empty:
        return None
    before = known_before(mine, window.start)
    config, task, seed = spec.monitor, spec.model.task, spec.train.seed
    said = WindowEstimate(
        model=spec.name,
        version=release.champion,
        window=window,
        as_of=as_of,
        served=len(served),
        labelled=int(served["label"].notna().sum()),
        estimate=estimate_performance(before, served, task=task, config=config, seed=seed),
        unavailable=UNAVAILABLE if task == "regression" else None,
        censored=censored_performance(mine, window, as_of=pd.Timestamp(as_of), task=task, config=config, seed=seed),
    )
    with wire.records() as records:
        records.estimates.record(said)
    return said


def reconcile(wire: Wiring, spec: ModelSpec, as_of: datetime) -> int:
    """Write what came true beside what was said of every window whose outcomes are in; returns of how many."""
    where = searched(as_of, spec.monitor)
    oldest = where.end - PATIENCE * where.length
    with wire.records() as records:
        said = records.estimates.history(spec.name, MOST_OPEN, before=as_of)
        since = [where.start if one.realised is not None else oldest for one in said]  # outcomes may still be coming
        waiting = [one for one, start in zip(said, since, strict=True) if one.window.start >= start]
        if not waiting:
            return 0
        whole = Window(start=min(o.window.start for o in waiting), end=max(o.window.end for o in waiting))
        frame = records.predictions.answers(spec.name, whole, as_of)
        done = 0
        for one in waiting:
            realised = _realised(frame, spec, one)
            if realised is not None:
                records.estimates.reconcile(spec.name, one.version, one.window, realised, as_of)
                done += 1
    return done


def _realised(frame: pd.DataFrame, spec: ModelSpec, said: WindowEstimate) -> dict[str, float] | None:
    """The figures of a window as its outcomes have them; None while too few are in."""
    rows = in_window(frame[frame["version"] == said.version], said.window)
    known = rows[rows["label"].notna()]
    counted = PerformanceReport(
        model=spec.name,
        version=said.version,
        window=said.window,
        served=len(rows),
        labelled=len(known),
        scores=None,
    )
    if waits_for_labels(counted, spec.monitor) is not None:
        return None
    task = spec.model.task
    place = blocks(known["event_timestamp"], spec.monitor.block_days)
    found = figures_by_days(task, *truth_and_scores(known, task), place)
    return {name: interval.figure for name, interval in found.items()}


def _told(said: WindowEstimate | None) -> str:
    if said is None:
        return "nothing, the champion answered nothing in the newest window"
    if said.estimate is None:
        return said.unavailable or "nothing"
    return ", ".join(f"{name} {interval}" for name, interval in said.estimate.figures.items())
