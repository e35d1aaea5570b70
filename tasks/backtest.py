"""Models of the past, policies played over them, and the page that says what came of it."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from evergreen.monitoring.backtest import Asked, Moment, Played, Policy, play
from evergreen.monitoring.backtest_figures import false_alarms, random_gains, results
from evergreen.monitoring.backtest_fit import MONITOR_KEYS, REMEDY_KEYS, fitted_spec, routines
from evergreen.monitoring.backtest_policies import by_spec, every, never
from evergreen.monitoring.backtest_report import BacktestReport, page, table
from evergreen.monitoring.rehearsals import Span, real
from evergreen.monitoring.windows import sample_by_day
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec
from evergreen.tuning import difference, rewritten
from evergreen.types import Remedy
from evergreen.wiring import wiring
from tasks.rehearsal import Models, Rehearsal, copies, in_parallel, rehearsal_of

if TYPE_CHECKING:
    from evergreen.training.rehearsal import Stage

T = TypeVar("T")
GAINS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04)
"""Probe gains the fit chooses from."""
RANDOM_POLICIES = 2_000
DEFAULT_SHARE = 0.5
"""From which on Evidently's preset alarms."""


@task(persist_result=False, cache_policy=NO_CACHE)
def rehearse_history(spec: ModelSpec, first: datetime, end: datetime, stage: "Stage", workers: int) -> Rehearsal:
    """Snapshot everything up to `end` once."""
    from evergreen.adapters.feature_tables import build_training_set
    from evergreen.training.rehearsal import cheaper

    wire = wiring()
    training_set = build_training_set(wire.settings.data, cheaper(spec), wire.features, end)
    span = Span(first, end, spec.monitor.window_days)
    return rehearsal_of(spec, training_set, wire.settings.home / "backtest", span, stage, workers)


@task(persist_result=False, cache_policy=NO_CACHE)
def fit_thresholds(rehearsal: Rehearsal) -> ModelSpec:
    """Choose by what is before the play, as it was and with its days shuffled, and by nothing after it."""
    fitted = fit(rehearsal)
    chosen = fitted.monitor.model_dump(include={"min_probe_gain", "max_age_days"}) | fitted.remedy.model_dump()
    get_run_logger().info("fitted: %s", chosen)
    return fitted


def fit(rehearsal: Rehearsal) -> ModelSpec:
    """What `fit_thresholds` does."""
    rows, span = rehearsal.rows, rehearsal.fitting
    tried = in_parallel(
        rehearsal,
        [
            partial(_loss_of_routine, replace(rehearsal, spec=spec, rows=rows, span=span))
            for spec in routines(rehearsal.spec)
        ],
    )
    return fitted_spec(rehearsal.spec, tried, copies(rehearsal, span), GAINS)


def _loss_of_routine(rehearsal: Rehearsal) -> tuple[ModelSpec, float]:
    """Summed log loss over the span when the spec's routine is all that is ever done."""
    models = Models(rehearsal)
    history = real(rehearsal.rows, rehearsal.span, models.scores)
    remedy = rehearsal.spec.remedy
    ask = never if remedy.routine is None else every(1, remedy.routine)
    played = play(history, ask, remedy.calibration_days)
    return rehearsal.spec, sum(history.loss(version, week) for week, version in enumerate(played.versions))


@task(persist_result=False, cache_policy=NO_CACHE)
def play_policies(rehearsal: Rehearsal, fitted: ModelSpec) -> BacktestReport:
    """Train the model of every slot, then ask every policy."""
    return played_policies(rehearsal, fitted, by_default(rehearsal))


def played_policies(rehearsal: Rehearsal, fitted: ModelSpec, by_default: Policy) -> BacktestReport:
    """What `play_policies` does."""
    mine, its = Models(rehearsal), Models(replace(rehearsal, spec=fitted))
    mine.all_slots()
    histories = [real(rehearsal.rows, rehearsal.span, models.scores) for models in (mine, its)]
    routine = never if fitted.remedy.routine is None else every(1, fitted.remedy.routine)
    policies: dict[str, tuple[int, Policy]] = {
        "never": (0, never),
        "weekly": (0, every(1)),
        "every 4 weeks": (0, every(4)),
        "Evidently's default": (0, by_default),
        "the fitted routine alone": (1, routine),
        "the spec's own": (0, by_spec(rehearsal.spec)),
        "fitted": (1, by_spec(fitted)),
    }
    made = (mine, its)

    def one(which: int, policy: Policy) -> Played:
        spec = (rehearsal.spec, fitted)[which]
        return play(histories[which], policy, spec.remedy.calibration_days)

    plays = in_parallel(rehearsal, [partial(one, *policy) for policy in policies.values()])
    played = dict(zip(policies, plays, strict=True))
    found = results(
        {name: (histories[which], played[name], made[which].seconds) for name, (which, _) in policies.items()}
    )
    losses = np.stack([histories[0].losses(slot) for slot in range(histories[0].weeks)])
    random = random_gains(losses, len(played["fitted"].retrains), RANDOM_POLICIES, rehearsal.spec.backtest.seed)
    shuffled_copies = copies(rehearsal, rehearsal.span)
    return BacktestReport.of(
        rehearsal.spec,
        fitted,
        found,
        random,
        {
            name: false_alarms(shuffled_copies, spec)
            for name, spec in (("the spec's own", rehearsal.spec), ("fitted", fitted))
        },
        slots=rehearsal.span.slots,
        fitted_on=(rehearsal.training_set.window.start, rehearsal.span.first),
    )


@task(persist_result=False, cache_policy=NO_CACHE)
def show_backtest(report: BacktestReport, fitted: ModelSpec) -> Path:
    """Write `reports/backtest.json`, the page and the recommended spec beside it, and put table and difference on the run."""
    folder, settings = ROOT / "reports", wiring().settings
    folder.mkdir(exist_ok=True)
    (folder / "backtest.json").write_text(report.model_dump_json(indent=1) + "\n")
    (folder / "backtest.html").write_text(page(report))
    text = (settings.models_dir / f"{report.model}.toml").read_text()
    recommended = recommendation(text, fitted)
    (folder / f"{report.model}.recommended.toml").write_text(recommended)
    change = difference(text, recommended, report.model, "recommended")
    create_markdown_artifact(key="backtest", markdown=f"{table(report)}\n\n```diff\n{change}```")
    get_run_logger().info("%s\n%s", table(report), change)
    return folder / "backtest.json"


def recommendation(text: str, fitted: ModelSpec) -> str:
    """A spec's text with what was fitted in `[monitor]` and `[remedy]`; all else stays, other alarms of the spec too."""
    for name, keys in (("monitor", MONITOR_KEYS), ("remedy", REMEDY_KEYS)):
        values = {key: getattr(getattr(fitted, name), key) for key in keys}
        text = rewritten(
            text, {key: value for key, value in values.items() if value is not None}, f"{fitted.name}.toml", name
        )
    return text


def by_default(rehearsal: Rehearsal) -> Policy:
    """Retrain when Evidently's preset, on the rows a report draws, says that half of the columns drifted."""
    from evergreen.adapters.evidently import default_share

    rows, spec, inputs = rehearsal.rows, rehearsal.spec, rehearsal.training_set.features
    when = rows["event_timestamp"]

    def ask(moment: Moment) -> Asked:
        end = moment.history.slots[moment.slot]
        start = end - timedelta(days=spec.monitor.window_days)
        sides = (rows[when < moment.history.cuts[moment.champion.slot]], rows[(when >= start) & (when < end)])
        drawn = [sample_by_day(side, spec.monitor.report_rows, seed=spec.train.seed) for side in sides]
        drifted = default_share(drawn[0], drawn[1], inputs) >= DEFAULT_SHARE
        return Asked(Remedy.RETRAIN if drifted else None, alarm=drifted)

    return ask
