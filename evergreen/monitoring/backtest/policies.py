"""Policies that a backtest plays: the calendar's, one that retrains when told, and a spec's own.

The spec's own is `policy.decide`, on reports of the code that runs live. Pure. Called by `tasks/backtest.py`. To add one,
write a function from `Moment` to `Asked`.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from evergreen.evaluation import score_rows
from evergreen.monitoring.backtest.play import Asked, Moment, Policy, Version, naive
from evergreen.monitoring.challenger import paired_by_day
from evergreen.monitoring.performance import performance
from evergreen.monitoring.policy import decide
from evergreen.monitoring.windows import known_before, newest_mature
from evergreen.spec import ModelSpec
from evergreen.types import (
    Cause,
    ChallengerReport,
    DriftReport,
    Evaluation,
    Fault,
    Remedy,
    RetrainDecision,
    WatchCheck,
    Window,
)

NO_ARTIFACT = "sha256:" + "0" * 64


def never(_: Moment) -> Asked:
    """The first model for ever."""
    return Asked()


def every(weeks: int, remedy: Remedy = Remedy.RETRAIN) -> Policy:
    """By the calendar alone."""
    return lambda moment: Asked(remedy if moment.slot % weeks == 0 else None)


def at(slots: Sequence[int], between: Remedy | None = None) -> Policy:
    """A retrain at these slots, whatever happens, and a cheaper remedy at all others."""
    return lambda moment: Asked(Remedy.RETRAIN if moment.slot in slots else between)


def unbroken(_: Moment) -> tuple[Fault, ...]:
    """Nobody looks for faults."""
    return ()


def unmoved(_: Moment) -> DriftReport | None:
    """Nobody looks for drift."""
    return None


def by_spec(
    spec: ModelSpec,
    faults: Callable[[Moment], tuple[Fault, ...]] = unbroken,
    drift: Callable[[Moment], DriftReport | None] = unmoved,
) -> Policy:
    """The rules of `[monitor]` and `[retrain].cooldown_days`, through the code that runs live.

    `faults` looks for broken data and `drift` for inputs that moved.
    """

    def ask(moment: Moment) -> Asked:
        history, as_of = moment.history, moment.history.slots[moment.slot]
        frame = answers(moment, spec)
        window = newest_mature(frame, as_of=as_of, config=spec.monitor)
        if window is None:
            return Asked()
        inside = (frame["event_timestamp"] >= window.start) & (frame["event_timestamp"] < window.end)
        earlier = known_before(frame, window.start)
        measured = performance(
            frame[inside],
            model=spec.name,
            version=moment.number,
            window=window,
            config=spec.monitor,
            earlier=earlier,
        )
        decision = decide(
            spec=spec,
            as_of=as_of,
            performance=measured,
            drift=drift(moment),
            champion_evaluation=_evaluation(moment, spec),
            trained_until=history.cuts[moment.champion.slot],
            history=moment.checks,
            faults=faults(moment),
            challenger=_challenger(moment, spec),
            unlearnt_share=_unlearnt_share(moment),
        )
        check = WatchCheck(
            model=spec.name,
            version=moment.number,
            window=window,
            alarms=decision.alarms,
            retrain=decision.retrain,
            episode=decision.episode,
            remedy=decision.remedy,
        )
        saw = any(alarm.trigger not in (Cause.AGE, Cause.VOLUME, Cause.FAULT) for alarm in decision.alarms)
        return Asked(_admitted(moment, spec, decision), decision.alarmed and saw, check)

    return ask


def _challenger(moment: Moment, spec: ModelSpec) -> ChallengerReport | None:
    """What learnt up to the slot before, beside the champion in the window since; of the rows whose outcomes are in."""
    history, kind, before = moment.history, spec.monitor.challenger, moment.slot - 1
    champion = moment.champion if kind == "fine_tune" else Version(moment.champion.slot)
    if kind is None or champion.learnt >= before:
        return None
    mine = Version(before) if kind == "retrain" else Version(champion.slot, (*champion.tuned, before))
    rows = (history.place == before) & (history.known <= naive(history.slots[moment.slot]))
    if rows.sum() < spec.monitor.min_labels:
        return None
    scores, theirs = (history.scores(version, moment.slot)[rows] for version in (mine, champion))
    found = paired_by_day("binary", history.moments[rows], history.labels[rows], scores, theirs)
    if found.days < 2:
        return None
    return ChallengerReport(
        kind=kind,
        learnt_until=history.cuts[before],
        rows=int(rows.sum()),
        days=found.days,
        gain=-found.mean,
        gain_low=-found.upper(spec.monitor.probe_confidence),
        cpu_seconds=0.0,
    )


def _admitted(moment: Moment, spec: ModelSpec, decision: RetrainDecision) -> Remedy | None:
    """What admission lets through: of retrains that alarms ask for, one in `cooldown_days`."""
    if not decision.retrain or (decision.remedy.trains_anew and _cooling(moment, spec)):
        return None
    return decision.remedy


def answers(moment: Moment, spec: ModelSpec) -> pd.DataFrame:
    """What the champion had answered lately, with the outcomes known at the slot: a frame of the prediction log."""
    history, as_of = moment.history, naive(moment.history.slots[moment.slot])
    since = max(as_of - np.timedelta64(4 * spec.monitor.window_days, "D"), naive(history.slots[served_since(moment)]))
    rows = np.flatnonzero((history.moments >= since) & (history.moments < as_of))
    known = history.known[rows] <= as_of
    return pd.DataFrame(
        {
            "event_timestamp": pd.to_datetime(history.moments[rows], utc=True),
            "version": moment.number,
            "score": history.scores(moment.champion, moment.slot)[rows],
            "label": np.where(known, history.labels[rows], np.nan),
            "label_timestamp": pd.to_datetime(np.where(known, history.known[rows], np.datetime64("NaT")), utc=True),
        }
    )


def served_since(moment: Moment) -> int:
    """The slot from which on the champion serves: that of the newest remedy."""
    return moment.remedies[-1][0] if moment.remedies else 0


def _unlearnt_share(moment: Moment) -> float:
    """Outcomes known at the slot that the champion's network was not trained on, of those it was."""
    history, trained = moment.history, naive(moment.history.cuts[moment.champion.slot])
    known = history.known <= naive(history.slots[moment.slot])
    return float((known & (history.moments >= trained)).sum() / max((history.moments < trained).sum(), 1))


def _cooling(moment: Moment, spec: ModelSpec) -> bool:
    if not moment.retrains:
        return False
    since = moment.history.slots[moment.slot] - moment.history.slots[moment.retrains[-1]]
    return since < timedelta(days=spec.retrain.cooldown_days)


def _evaluation(moment: Moment, spec: ModelSpec) -> Evaluation:
    """The champion's figures on the last days with rows that it was trained before: what stands in for its gate."""
    history, length = moment.history, timedelta(days=spec.train.holdout_days)
    end = history.slots[moment.champion.learnt]
    before = history.moments[history.moments < naive(end)]
    while len(before) and before.max() < naive(end - length):  # nobody asked in those days
        end -= length
    window = Window(start=end - length, end=end)
    rows = (history.moments >= naive(window.start)) & (history.moments < naive(window.end))
    overall = score_rows(history.labels[rows], history.scores(moment.champion, moment.champion.learnt)[rows])
    return Evaluation(
        model=spec.name, artifact=NO_ARTIFACT, holdout=window, holdout_digest=NO_ARTIFACT, days=7, overall=overall
    )
