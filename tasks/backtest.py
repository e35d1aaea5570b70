"""Models of the past, policies played over them, and the page that says what came of it."""

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from evergreen.monitoring.backtest.broken import require_known
from evergreen.monitoring.backtest.fit import MONITOR_KEYS, REMEDY_KEYS
from evergreen.monitoring.backtest.page import render
from evergreen.monitoring.backtest.rehearsals import Span
from evergreen.monitoring.backtest.report import BacktestReport, table
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec
from evergreen.tuning import difference, rewritten
from evergreen.wiring import wiring
from tasks.plays import by_default, fit, played_policies
from tasks.rehearsal import Rehearsal, rehearsal_of

if TYPE_CHECKING:
    from evergreen.training.rehearsal import Stage


@task(persist_result=False, cache_policy=NO_CACHE)
def rehearse_history(spec: ModelSpec, first: datetime, end: datetime, stage: "Stage", workers: int) -> Rehearsal:
    """Snapshot everything up to `end` once."""
    from evergreen.adapters.feature_tables import build_training_set, known_moments
    from evergreen.training.rehearsal import cheaper

    wire = wiring()
    training_set = build_training_set(wire.settings.data, cheaper(spec), wire.features, end)
    span = Span(first, end, spec.monitor.window_days)
    tables = (spec.data.examples, spec.data.labels, *wire.features.tables(spec.data.feature_service))
    require_known(spec.backtest.faults, training_set.features, tables)
    rehearsal = rehearsal_of(spec, training_set, wire.settings.home / "backtest", span, stage, workers)
    return replace(rehearsal, feeds=partial(known_moments, wire.settings.data, tables))


@task(persist_result=False, cache_policy=NO_CACHE)
def fit_thresholds(rehearsal: Rehearsal) -> ModelSpec:
    """Choose by what is before the play, as it was and with its days shuffled, and by nothing after it."""
    fitted = fit(rehearsal)
    chosen = fitted.monitor.model_dump(include={"min_probe_gain", "max_age_days"}) | fitted.remedy.model_dump()
    get_run_logger().info("fitted: %s", chosen)
    return fitted


@task(persist_result=False, cache_policy=NO_CACHE)
def play_policies(rehearsal: Rehearsal, fitted: ModelSpec) -> BacktestReport:
    """Train the model of every slot, then ask every policy."""
    return played_policies(rehearsal, fitted, by_default(rehearsal), get_run_logger().info)


@task(persist_result=False, cache_policy=NO_CACHE)
def show_backtest(report: BacktestReport, fitted: ModelSpec) -> Path:
    """Write `reports/backtest.json`, the page and the recommended spec beside it, and put table and difference on the run."""
    folder, settings = ROOT / "reports", wiring().settings
    folder.mkdir(exist_ok=True)
    (folder / "backtest.json").write_text(report.model_dump_json(indent=1) + "\n")
    (folder / "backtest.html").write_text(render(report))
    text = (settings.models_dir / f"{report.model}.toml").read_text()
    recommended = recommendation(text, fitted)
    (folder / f"{report.model}.recommended.toml").write_text(recommended)
    change = difference(text, recommended, report.model, "recommended")
    create_markdown_artifact(key="backtest", markdown=f"{table(report)}\n\n```diff\n{change}```")
    get_run_logger().info("%s\n%s", table(report), change)
    return folder / "backtest.json"


def recommendation(text: str, fitted: ModelSpec) -> str:
    """A spec's text with `[monitor]` and `[remedy]` as they were fitted and played; an alarm that was not goes out of it."""
    for name, keys in (("monitor", MONITOR_KEYS), ("remedy", REMEDY_KEYS)):
        values = {key: getattr(getattr(fitted, name), key) for key in keys}
        text = rewritten(text, values, f"{fitted.name}.toml", name)
    return text
