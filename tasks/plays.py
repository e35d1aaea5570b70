"""What a backtest plays over a rehearsal: the thresholds' fit, each policy, random ones, and data broken on purpose.

Plain functions, no tasks. Called by `tasks/backtest.py`. To play another policy, add it in `played_policies`.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evergreen.monitoring.backtest.broken import FaultFigures, Looks, some_slots
from evergreen.monitoring.backtest.drifting import Drifts
from evergreen.monitoring.backtest.figures import FalseAlarms, false_alarms, random_gains, results
from evergreen.monitoring.backtest.fit import fitted_spec, routines
from evergreen.monitoring.backtest.play import Asked, History, Moment, Played, Policy, play
from evergreen.monitoring.backtest.policies import at, by_spec, every, never
from evergreen.monitoring.backtest.rehearsals import real
from evergreen.monitoring.backtest.report import BacktestReport
from evergreen.monitoring.windows import sample_by_day
from evergreen.spec import InjectedFault, ModelSpec
from evergreen.types import Remedy
from tasks.rehearsal import Models, Rehearsal, dealer, in_parallel

GAINS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04)
"""Probe gains the fit chooses from."""
RANDOM_POLICIES = 2_000
ROUTINE_SLOTS = 3
"""Random retrains with a routine between are drawn out of each third slot: from each the routine is a chain of its own."""
DEFAULT_SHARE = 0.5
"""From which on Evidently's preset alarms."""


def fit(rehearsal: Rehearsal) -> ModelSpec:
    """The spec with thresholds chosen by what is before the play, as it was and with its days shuffled."""
    rows, span = rehearsal.rows, rehearsal.fitting
    tried = in_parallel(
        rehearsal,
        [
            partial(_loss_of_routine, replace(rehearsal, spec=spec, rows=rows, span=span))
            for spec in routines(rehearsal.spec)
        ],
    )
    deal = dealer(rehearsal, span)
    copies = in_parallel(rehearsal, [partial(deal, number) for number in range(rehearsal.spec.backtest.copies)])
    return fitted_spec(rehearsal.spec, tried, [copy.history for copy in copies], GAINS)


def _loss_of_routine(rehearsal: Rehearsal) -> tuple[ModelSpec, float]:
    """Summed log loss over the span when the spec's routine is all that is ever done."""
    models = Models(rehearsal)
    history = real(rehearsal.rows, rehearsal.span, models.scores)
    remedy = rehearsal.spec.remedy
    ask = never if remedy.routine is None else every(1, remedy.routine)
    played = play(history, ask, remedy.calibration_days)
    return rehearsal.spec, sum(history.loss(version, week) for week, version in enumerate(played.versions))


def played_policies(
    rehearsal: Rehearsal, fitted: ModelSpec, by_default: Policy, tell: Callable[[str], None]
) -> BacktestReport:
    """Train the model of every slot, then ask every policy; what does not wait for another runs beside it.

    `tell` hears from time to time how far it is.
    """
    specs = (rehearsal.spec, fitted)
    models = [Models(replace(rehearsal, spec=spec)) for spec in specs]
    models[0].all_slots()
    histories = [real(rehearsal.rows, rehearsal.span, made.scores) for made in models]
    routine = never if fitted.remedy.routine is None else every(1, fitted.remedy.routine)
    inputs = rehearsal.training_set.features
    looks = [Looks(rehearsal.rows, inputs, rehearsal.feeds) for _ in specs]
    drifts = [Drifts(rehearsal.rows, inputs, spec) for spec in specs]
    policies: dict[str, tuple[int, Policy]] = {
        "never": (0, never),
        "weekly": (0, every(1)),
        "every 4 weeks": (0, every(4)),
        "Evidently's default": (0, by_default),
        "the fitted routine alone": (1, routine),
        "the spec's own": (0, by_spec(rehearsal.spec, looks[0], drifts[0])),
        "fitted": (1, by_spec(fitted, looks[1], drifts[1])),
    }

    def one(which: int, policy: Policy) -> Played:
        return play(histories[which], policy, specs[which].remedy.calibration_days)

    def false(number: int) -> list[FalseAlarms]:
        dealt = deal(number)
        return [false_alarms([dealt.history], spec, Drifts(dealt.rows, inputs, spec)) for spec in specs]

    config, deal = rehearsal.spec.backtest, dealer(rehearsal, rehearsal.span)
    with ThreadPoolExecutor(rehearsal.workers + 1) as pool:
        plays = {name: pool.submit(one, *policy) for name, policy in policies.items()}
        starts = range(0, histories[1].weeks, ROUTINE_SLOTS)
        between = [pool.submit(_losses_from, fitted, histories[1], slot) for slot in starts]
        faults = [pool.submit(_broken, rehearsal, fitted, histories[1], fault) for fault in config.faults]
        alarms = [pool.submit(false, number) for number in range(config.copies)]
        _tell_progress([*plays.values(), *between, *faults, *alarms], tell)
        played = {name: waited.result() for name, waited in plays.items()}
        tuned = {slot: waited.result() for slot, waited in zip(starts, between, strict=True)}
    found = results(
        {
            name: (histories[which], played[name], models[which].seconds)
            for name, (which, _) in policies.items()
        }
    )  # fmt: skip
    counted = [FalseAlarms.of(parts) for parts in zip(*(waited.result() for waited in alarms), strict=True)]
    return BacktestReport.of(
        rehearsal.spec,
        fitted,
        found,
        _random(histories[0], tuned, len(played["fitted"].retrains), config.seed),
        dict(zip(("the spec's own", "fitted"), counted, strict=True)),
        slots=rehearsal.span.slots,
        fitted_on=(rehearsal.training_set.window.start, rehearsal.span.first),
        faults=tuple(waited.result() for waited in faults),
        unbroken=looks[1].seen,
    )


def _tell_progress(plays: Sequence[Future[Any]], tell: Callable[[str], None]) -> None:
    """Ten times at most; raises what the first that failed raised."""
    for done, ended in enumerate(as_completed(plays), 1):
        ended.result()
        if 10 * done // len(plays) > 10 * (done - 1) // len(plays):
            tell(f"{done} of {len(plays)} plays are over")


def _broken(rehearsal: Rehearsal, fitted: ModelSpec, history: History, fault: InjectedFault) -> FaultFigures:
    """The fitted policy once more, with some windows broken; of those only what was put in is looked at."""
    inputs = {name: kind for name, kind in rehearsal.training_set.features.items() if name == fault.column}
    looks = Looks(rehearsal.rows, inputs, rehearsal.feeds, fault, some_slots(history.weeks))
    return looks.figures(play(history, by_spec(fitted, looks), fitted.remedy.calibration_days))


def _losses_from(fitted: ModelSpec, history: History, slot: int) -> NDArray[np.float64]:
    """(weeks,) summed loss of a retrain at a slot with the fitted routine at each later one; NaN before it."""
    played = play(history, at((slot,), between=fitted.remedy.routine), fitted.remedy.calibration_days)
    losses = np.full(history.weeks, np.nan)
    losses[slot:] = [history.loss(played.versions[week], week) for week in range(slot, history.weeks)]
    return losses


def _random(
    history: History, tuned: Mapping[int, NDArray[np.float64]], retrains: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """(draws,) share of weekly's gain of as many retrains in random weeks: by themselves, and with the fitted routine between.

    `tuned` has `_losses_from` by slot.
    """
    alone = np.stack([history.losses(slot) for slot in range(history.weeks)])
    between = np.full_like(alone, np.nan)
    for slot, losses in tuned.items():
        between[slot] = losses
    bounds = (float(alone[0].sum()), float(np.diagonal(alone).sum()))
    return {
        name: random_gains(losses, retrains, RANDOM_POLICIES, seed, bounds, every)
        for name, losses, every in (("alone", alone, 1), ("between", between, ROUTINE_SLOTS))
    }


def by_default(rehearsal: Rehearsal) -> Policy:
    """Retrain when Evidently's preset, on the rows a report draws, says that half of the columns drifted."""
    from evergreen.adapters.evidently.reports import default_share

    rows, spec, inputs = rehearsal.rows, rehearsal.spec, rehearsal.training_set.features
    when = rows["event_timestamp"]

    def ask(moment: Moment) -> Asked:
        end = moment.history.slots[moment.slot]
        start = end - timedelta(days=spec.monitor.window_days)
        sides = (rows[when < moment.history.cuts[moment.champion.slot]], rows[(when >= start) & (when < end)])
        drawn = [sample_by_day(side, spec.monitor.report_rows, seed=spec.train.seed) for side in sides]
        share = rehearsal.stage.call(
            default_share, drawn[0], drawn[1], inputs
        ).result()  # it takes seconds to draw its plots
        drifted = share >= DEFAULT_SHARE
        return Asked(Remedy.RETRAIN if drifted else None, alarm=drifted)

    return ask
