"""Is it time for a successor? The rules of `[monitor]` and `[retrain]` over reports and past checks.

Pure: no clock, no storage, no events. `decide` asks each trigger for its finding, requires that `persistence` of the
newest windows alarmed, holds everything back while the data is broken, and names the episode the alarm belongs to.
Whether a retrain is then started is admission's to say: it lets one through an episode.
Called by the watch flow; what alarms is `triggers.py`'s.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import takewhile

from evergreen.monitoring.ladder import LADDER, climbed
from evergreen.monitoring.triggers import findings
from evergreen.spec import ModelSpec
from evergreen.types import (
    Alarm,
    Cause,
    ChallengerReport,
    DriftReport,
    Evaluation,
    Fault,
    PerformanceReport,
    Remedy,
    RetrainDecision,
    WatchCheck,
)


def decide(
    *,
    spec: ModelSpec,
    as_of: datetime,
    performance: PerformanceReport,
    drift: DriftReport | None,
    champion_evaluation: Evaluation,
    trained_until: datetime,
    history: Sequence[WatchCheck],
    faults: Sequence[Fault] = (),
    unlearnt_share: float | None = None,
    challenger: ChallengerReport | None = None,
) -> RetrainDecision:
    """Decide from one window's reports and the checks before it.

    `performance` is the champion's, `champion_evaluation` what it scored at its gate, `trained_until` the end of the
    rows it was trained on, `drift` None when there was nothing to compare. `history` holds past checks of the model,
    newest first; checks of the same or a later window are left out, so asking again gives the same answer. With `faults`
    the answer is no, whatever else alarms: a model must not learn broken data, and what it breaks is no decay.
    `unlearnt_share` is what came in since, of what it learnt from; None where nobody counted, and so is `challenger` where none
    was made.
    """
    found = findings(
        spec.monitor, as_of, performance, drift, champion_evaluation, trained_until, unlearnt_share, challenger
    )
    alarms = tuple(finding.alarm for finding in found if finding.alarm is not None)
    reasons = [finding.reason for finding in found]
    if faults:
        return _held_back(spec, as_of, faults, alarms, reasons)
    if not alarms:
        return _routine(spec, as_of, performance, reasons)
    stretch = alarming_stretch(history, performance)
    asked, among = spec.monitor.persistence, spec.monitor.persistence_of
    if among is None:
        alarming = len(stretch) + 1
        seen = f"{alarming} window{'s' * (alarming > 1)} in a row alarmed"
    else:
        alarming = 1 + sum(alarms_of_model(check) for check in _before(history, performance)[: among - 1])
        seen = f"{alarming} of the newest {among} windows alarmed, this one among them"
    retrain = alarming >= asked
    verdict = f"{seen}, [monitor].persistence asks for {asked}"
    remedy, rung = climbed(spec, performance.window.end, alarms, history)
    told = [
        *(alarm.reason for alarm in alarms),
        verdict,
        rung,
        *(finding.reason for finding in found if finding.alarm is None),
    ]
    routine = spec.remedy.routine
    # What alarms gets no less than a calm day does.
    if routine is not None and not (retrain and LADDER.index(remedy) > LADDER.index(routine)):
        return _routine(spec, as_of, performance, told, alarms, alarmed=retrain)
    return RetrainDecision(
        model=spec.name,
        as_of=as_of,
        retrain=retrain,
        alarms=alarms,
        reasons=tuple(told),
        episode=_episode(spec, performance, stretch, remedy),
        remedy=remedy,
        alarmed=retrain,
    )


def alarming_stretch(history: Sequence[WatchCheck], performance: PerformanceReport) -> list[WatchCheck]:
    """The checks of the same champion right before this window that all alarmed, newest first, one a window."""
    return list(takewhile(alarms_of_model, _before(history, performance)))


def alarms_of_model(check: WatchCheck) -> bool:
    """Whether a check raised an alarm that a retrain could answer."""
    return any(alarm.trigger != Cause.FAULT for alarm in check.alarms)


def _before(history: Sequence[WatchCheck], performance: PerformanceReport) -> list[WatchCheck]:
    """The checks of the same champion, newest first, one a window; those that saw broken data tell nothing of it."""
    earlier: list[WatchCheck] = []
    newer_end = performance.window.end
    for check in history:
        if check.window.end >= newer_end:
            continue  # this window, or one already counted, checked again
        if check.version != performance.version:
            break
        newer_end = check.window.end
        if not any(alarm.trigger == Cause.FAULT for alarm in check.alarms):
            earlier.append(check)
    return earlier


def _held_back(
    spec: ModelSpec, as_of: datetime, faults: Sequence[Fault], alarms: Sequence[Alarm], reasons: Sequence[str]
) -> RetrainDecision:
    broken = [
        Alarm(trigger=Cause.FAULT, figure=fault.figure, rule=f"{fault.kind}: {fault.limit:.4g}", reason=fault.reason)
        for fault in faults
    ]
    return RetrainDecision(
        model=spec.name,
        as_of=as_of,
        retrain=False,
        alarms=(*broken, *alarms),
        reasons=("held back: the data is broken", *(fault.reason for fault in faults), *reasons),
    )


def _routine(
    spec: ModelSpec,
    as_of: datetime,
    performance: PerformanceReport,
    reasons: Sequence[str],
    alarms: tuple[Alarm, ...] = (),
    *,
    alarmed: bool = False,
) -> RetrainDecision:
    """Nothing asks for more than what is done at every check; a window has its routine once."""
    routine, said = spec.remedy.routine, reasons if alarms else ("nothing alarms", *reasons)
    if routine is None:
        return RetrainDecision(model=spec.name, as_of=as_of, retrain=False, alarms=alarms, reasons=tuple(said))
    return RetrainDecision(
        model=spec.name,
        as_of=as_of,
        retrain=True,
        alarms=alarms,
        reasons=(f"{routine}: [remedy].routine, at every check", *said),
        episode=f"{spec.name}:v{performance.version}:{routine}:{performance.window.end.date().isoformat()}",
        remedy=routine,
        routine=True,
        alarmed=alarmed,
    )


def _episode(spec: ModelSpec, performance: PerformanceReport, stretch: Sequence[WatchCheck], remedy: Remedy) -> str:
    """Continue the newest check's episode, or open one that starts with this window; each rung has one of its own.

    An episode's start stands in its name, so a history that was cut short does not give a stretch a second name.
    """
    end, rung = performance.window.end.date(), "" if remedy == Remedy.RETRAIN else f"{remedy}:"
    if stretch and stretch[0].episode is not None and stretch[0].remedy == remedy:
        started = date.fromisoformat(stretch[0].episode.rsplit(":", 1)[1])
        if (end - started) < timedelta(days=spec.retrain.cooldown_days):
            return stretch[0].episode
    return f"{spec.name}:v{performance.version}:{rung}{end.isoformat()}"
