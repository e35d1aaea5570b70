"""Models of the past, policies played over them, and the page that says what came of it."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from evergreen.errors import SpecError
from evergreen.monitoring.backtest import Asked, History, Moment, Played, Policy, by_spec, every, never, play
from evergreen.monitoring.backtest_figures import false_alarms, random_gains, results
from evergreen.monitoring.backtest_fit import MONITOR_KEYS, REMEDY_KEYS, fitted_spec, routines
from evergreen.monitoring.backtest_report import BacktestReport, page, table
from evergreen.monitoring.rehearsals import Span, cuts, real, shuffled
from evergreen.monitoring.windows import sample_by_day
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec
from evergreen.tuning import difference, rewritten
from evergreen.types import Remedy, TrainingSet
from evergreen.wiring import code_revision, wiring

if TYPE_CHECKING:
    from evergreen.training.rehearsal import Rehearsed, Stage

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
    """As written, but for `[train]`, which is `[backtest]`'s cheaper one."""
    training_set: TrainingSet
    rows: pd.DataFrame
    folder: Path
    span: Span
    fitting: Span
    stage: "Stage"
    workers: int
    revision: str = field(default_factory=code_revision)


def rehearsal_of(
    spec: ModelSpec, training_set: TrainingSet, folder: Path, span: Span, stage: "Stage", workers: int
) -> Rehearsal:
    """Play over a snapshot: the part before `span` fits thresholds, its later half as if played; the rest is played.

    Raises `SpecError` where the model's task is none that a backtest plays.
    """
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.rehearsal import cheaper

    if spec.model.task != "binary":
        raise SpecError(f"{spec.name} is a {spec.model.task} model; a backtest plays binary ones so far")
    weeks = int((span.first - training_set.window.start) / timedelta(days=span.days))
    half = span.first - timedelta(days=span.days) * (weeks // 2 + 1)
    rows, fitting = load_training_set(training_set), Span(half, span.first, span.days)
    return Rehearsal(cheaper(spec), training_set, rows, folder, span, fitting, stage, workers)


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
    tried = _in_parallel(
        rehearsal,
        [
            partial(_loss_of_routine, replace(rehearsal, spec=spec, rows=rows, span=span))
            for spec in routines(rehearsal.spec)
        ],
    )
    return fitted_spec(rehearsal.spec, tried, _copies(rehearsal, span), GAINS)


def _loss_of_routine(rehearsal: Rehearsal) -> tuple[ModelSpec, float]:
    """Summed log loss over the span when the spec's routine is all that is ever done."""
    models = Models(rehearsal)
    history = real(rehearsal.rows, rehearsal.span, models.scores)
    remedy = rehearsal.spec.remedy
    ask = never if remedy.routine is None else every(1, remedy.routine)
    played = play(history, ask, remedy.calibration_days)
    return rehearsal.spec, sum(history.loss(version, week) for week, version in enumerate(played.versions))


class Models:
    """The models of one span's slots, and what fine-tuning makes of them; each is made once, when it is asked for."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self.cuts = cuts(rehearsal.rows, rehearsal.span.slots[:-1])
        self._known: dict[tuple[int, tuple[int, ...]], Rehearsed] = {}
        self._lock = threading.Lock()

    def all_slots(self) -> None:
        """Make the model of every slot, as many at a time as there are workers."""
        _in_parallel(self._rehearsal, [partial(self.rehearsed, slot, ()) for slot in range(len(self.cuts))])

    def scores(self, slot: int, tuned: tuple[int, ...]) -> NDArray[np.float64]:
        """(rows,) as `History.weights`."""
        return self.rehearsed(slot, tuned).scores

    def seconds(self, slot: int, tuned: tuple[int, ...]) -> float:
        """CPU time that the last step to it took."""
        return self.rehearsed(slot, tuned).seconds

    def rehearsed(self, slot: int, tuned: tuple[int, ...]) -> "Rehearsed":
        """The model itself."""
        key = (slot, tuned)
        if key not in self._known:
            found = self._make(slot, tuned)
            with self._lock:
                self._known[key] = found
        return self._known[key]

    def _make(self, slot: int, tuned: tuple[int, ...]) -> "Rehearsed":
        from evergreen.training.job import TrainingJob
        from evergreen.training.rehearsal import Part, before

        here, spec = self._rehearsal, self._rehearsal.spec
        learnt = tuned[-1] if tuned else slot
        base = None
        if tuned:
            since = self.cuts[learnt] - timedelta(days=spec.remedy.tune_days)
            base, spec = self.rehearsed(slot, tuned[:-1]).base(since), spec.fine_tuning
        job = TrainingJob(
            training_set=before(here.training_set, self.cuts[learnt]),
            spec=spec,
            code_revision=here.revision,
            folder=str(here.folder),
            base=base,
        )
        first = here.span.slots[learnt] - timedelta(days=spec.train.holdout_days)
        return here.stage.rehearse(Part(job, here.training_set, first)).result()


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

    plays = _in_parallel(rehearsal, [partial(one, *policy) for policy in policies.values()])
    played = dict(zip(policies, plays, strict=True))
    found = results(
        {name: (histories[which], played[name], made[which].seconds) for name, (which, _) in policies.items()}
    )
    losses = np.stack([histories[0].losses(slot) for slot in range(histories[0].weeks)])
    random = random_gains(losses, len(played["fitted"].retrains), RANDOM_POLICIES, rehearsal.spec.backtest.seed)
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
    """A spec's text with what was fitted in `[monitor]` and `[remedy]`; all else stays."""
    for name, keys in (("monitor", MONITOR_KEYS), ("remedy", REMEDY_KEYS)):
        values = {key: getattr(getattr(fitted, name), key) for key in keys}
        text = rewritten(
            text, {key: value for key, value in values.items() if value is not None}, f"{fitted.name}.toml", name
        )
    return text


def _copies(rehearsal: Rehearsal, span: Span) -> list[History]:
    """Shuffled copies of the rows up to the span's end, each with its own first model."""
    from evergreen.training.job import TrainingJob
    from evergreen.training.rehearsal import Part, snapshot_of

    whole = rehearsal.training_set
    rows = rehearsal.rows[rehearsal.rows["event_timestamp"] < span.end].reset_index(drop=True)
    scored = snapshot_of(whole, rows, rehearsal.folder / "snapshots", span.end)

    def train(moved: pd.DataFrame, cut: datetime) -> NDArray[np.float64]:
        made = snapshot_of(whole, moved, rehearsal.folder / "snapshots", cut)
        job = TrainingJob(
            training_set=made, spec=rehearsal.spec, code_revision=rehearsal.revision, folder=str(rehearsal.folder)
        )
        # Days are dealt out anew, so any row may be asked about.
        return rehearsal.stage.rehearse(Part(job, scored, scored.window.start)).result().scores

    config = rehearsal.spec.backtest
    seeds = range(config.seed, config.seed + config.copies)
    return _in_parallel(rehearsal, [partial(shuffled, rows, span, train, seed) for seed in seeds])


def _in_parallel(rehearsal: Rehearsal, work: Iterable[Callable[[], T]]) -> list[T]:
    """Each piece waits for a process of the stage, so threads are enough; one more than those keeps them busy."""
    with ThreadPoolExecutor(rehearsal.workers + 1) as pool:
        return list(pool.map(lambda piece: piece(), work))


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
