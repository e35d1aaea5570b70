"""Models of the past, policies played over them, and the page that says what came of it."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from evergreen.errors import SpecError
from evergreen.monitoring.backtest import (
    Asked,
    History,
    Moment,
    Policy,
    by_spec,
    every,
    never,
    play,
)
from evergreen.monitoring.backtest_figures import (
    false_alarms,
    fitted_spec,
    random_gains,
    results,
)
from evergreen.monitoring.backtest_report import BacktestReport, page, table
from evergreen.monitoring.rehearsals import Span, cuts, real, shuffled
from evergreen.monitoring.windows import sample_by_day
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec
from evergreen.types import TrainingSet
from evergreen.wiring import code_revision, wiring

T = TypeVar("T")
GAINS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04)
"""Probe gains the fit chooses from."""
RANDOM_POLICIES = 2_000
DEFAULT_SHARE = 0.5
"""From which on Evidently's preset alarms."""


@dataclass(frozen=True)
class Rehearsal:
    """What the tasks of one backtest hand on; it does not travel."""

    spec: ModelSpec
    training_set: TrainingSet
    rows: pd.DataFrame
    folder: Path
    span: Span
    fitting: Span
    workers: int


@task(persist_result=False)
def rehearse_history(spec: ModelSpec, first: datetime, end: datetime, workers: int) -> Rehearsal:
    """Snapshot everything up to `end` once; the part before `first` fits thresholds, the rest is played."""
    from evergreen.adapters.feature_tables import build_training_set, load_training_set
    from evergreen.training.rehearsal import cheaper

    if spec.model.task != "binary":
        raise SpecError(f"{spec.name} is a {spec.model.task} model; a backtest plays binary ones so far")
    wire, days = wiring(), spec.monitor.window_days
    cheap = cheaper(spec)
    training_set = build_training_set(wire.settings.data, cheap, wire.features, end)
    rows = load_training_set(training_set)
    start = training_set.window.start
    weeks = int((first - start) / timedelta(days=days))
    half = first - timedelta(days=days) * (weeks // 2 + 1)
    return Rehearsal(
        cheap,
        training_set,
        rows,
        wire.settings.home / "backtest",
        Span(first, end, days),
        Span(half, first, days),
        workers,
    )


@task(persist_result=False)
def fit_thresholds(rehearsal: Rehearsal) -> ModelSpec:
    """Choose by shuffled copies of what is before the play, and of nothing after it."""
    fitted = fitted_spec(rehearsal.spec, _copies(rehearsal, rehearsal.fitting), GAINS)
    get_run_logger().info("fitted: %s", fitted.monitor.model_dump(include={"min_probe_gain", "max_age_days"}))
    return fitted


@task(persist_result=False)
def play_policies(rehearsal: Rehearsal, fitted: ModelSpec) -> BacktestReport:
    """Train the model of every slot, then ask every policy."""
    slots = rehearsal.span.slots[:-1]
    trained = _in_parallel(rehearsal, [partial(_rehearse, rehearsal, cut) for cut in cuts(rehearsal.rows, slots)])
    history = real(rehearsal.rows, rehearsal.span, lambda slot: trained[slot][0])
    policies: dict[str, Policy] = {
        "never": never,
        "weekly": every(1),
        "every 4 weeks": every(4),
        "Evidently's default": _by_default(rehearsal),
        "the spec's own": by_spec(rehearsal.spec),
        "fitted": by_spec(fitted),
    }
    played = {name: play(history, policy) for name, policy in policies.items()}
    losses = np.stack([history.losses(slot) for slot in range(history.weeks)])
    found = results(history, played, losses, [seconds for _, seconds in trained])
    retrains = len(played["fitted"].retrains)
    random = random_gains(losses, retrains, RANDOM_POLICIES, rehearsal.spec.backtest.seed)
    copies = _copies(rehearsal, rehearsal.span)
    return BacktestReport.of(
        rehearsal.spec,
        fitted,
        found,
        random,
        {name: false_alarms(copies, spec) for name, spec in (("the spec's own", rehearsal.spec), ("fitted", fitted))},
        slots=rehearsal.span.slots,
        fitted_on=(rehearsal.training_set.window.start, rehearsal.span.first),
    )


@task(persist_result=False)
def show_backtest(report: BacktestReport) -> Path:
    """Write `reports/backtest.json` and the page beside it, and put the table on the run."""
    folder = ROOT / "reports"
    folder.mkdir(exist_ok=True)
    (folder / "backtest.json").write_text(report.model_dump_json(indent=1) + "\n")
    (folder / "backtest.html").write_text(page(report))
    create_markdown_artifact(key="backtest", markdown=table(report))
    return folder / "backtest.json"


def _rehearse(rehearsal: Rehearsal, cut: datetime) -> tuple[NDArray[np.float64], float]:
    from evergreen.training.rehearsal import before, rehearse

    whole = rehearsal.training_set
    found = rehearse(
        rehearsal.spec, before(whole, cut), rehearsal.rows, whole.digest, rehearsal.folder, code_revision()
    )
    return found.scores, found.seconds


def _copies(rehearsal: Rehearsal, span: Span) -> list[History]:
    """Shuffled copies of the rows up to the span's end, each with its own first model."""
    from evergreen.adapters.feature_tables import content_digest
    from evergreen.training.rehearsal import rehearse, snapshot_of

    rows = rehearsal.rows[rehearsal.rows["event_timestamp"] < span.end].reset_index(drop=True)
    digest = content_digest(rows)

    def train(moved: pd.DataFrame, cut: datetime) -> NDArray[np.float64]:
        made = snapshot_of(rehearsal.training_set, moved, rehearsal.folder / "shuffled", cut)
        return rehearse(rehearsal.spec, made, rows, digest, rehearsal.folder, code_revision()).scores

    config = rehearsal.spec.backtest
    seeds = range(config.seed, config.seed + config.copies)
    return _in_parallel(rehearsal, [partial(shuffled, rows, span, train, seed) for seed in seeds])


def _in_parallel(rehearsal: Rehearsal, work: Iterable[Callable[[], T]]) -> list[T]:
    """Each piece waits for a training process of its own, so threads are enough."""
    with ThreadPoolExecutor(rehearsal.workers) as pool:
        return list(pool.map(lambda piece: piece(), work))


def _by_default(rehearsal: Rehearsal) -> Policy:
    """Retrain when Evidently's preset, on the rows a report draws, says that half of the columns drifted."""
    from evergreen.adapters.evidently import default_share

    rows, spec, inputs = rehearsal.rows, rehearsal.spec, rehearsal.training_set.features
    when = rows["event_timestamp"]

    def ask(moment: Moment) -> Asked:
        end = moment.history.slots[moment.slot]
        start = end - timedelta(days=spec.monitor.window_days)
        sides = (rows[when < moment.history.cuts[moment.champion]], rows[(when >= start) & (when < end)])
        drawn = [sample_by_day(side, spec.monitor.report_rows, seed=spec.train.seed) for side in sides]
        drifted = default_share(drawn[0], drawn[1], inputs) >= DEFAULT_SHARE
        return Asked(retrain=drifted, alarm=drifted)

    return ask
