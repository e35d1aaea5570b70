"""Is it time for a successor? The rules of `[monitor]` and `[retrain]` over reports and past checks.

Pure: no clock, no storage, no events. `decide` asks each trigger for its finding, requires that `persistence` of the
newest windows alarmed, holds everything back while the data is broken, and names the episode the alarm belongs to.
Whether a retrain is then started is admission's to say: it lets one through an episode.
Called by the watch flow; thresholds come from the model's file. To add a trigger, write a function that returns a
`Finding` and call it in `_findings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import takewhile

from evergreen.evaluation import calibration_gap
from evergreen.monitoring.ladder import LADDER, climbed
from evergreen.monitoring.performance import waits_for_labels
from evergreen.spec import ModelSpec, MonitorConfig
from evergreen.types import (
    LOSS_NAMES,
    Alarm,
    Cause,
    ChallengerReport,
    DriftReport,
    Evaluation,
    Fault,
    PerformanceReport,
    ProbeReport,
    Remedy,
    RetrainDecision,
    Scores,
    WatchCheck,
)

MIN_DAY_SHARE = 0.5
"""A version is judged on labels once they span this share of the window's days: one bad day is weather, not decay."""


@dataclass(frozen=True)
class Finding:
    """What one trigger saw: a sentence always, an alarm if its rule was broken."""

    reason: str
    alarm: Alarm | None = None


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
    findings = _findings(spec.monitor, as_of, performance, drift, champion_evaluation, trained_until)
    findings += [
        *_estimated(spec.monitor, performance, champion_evaluation.overall),
        *_volume(spec.monitor, unlearnt_share),
        *_challenger(spec.monitor, challenger),
    ]
    alarms = tuple(finding.alarm for finding in findings if finding.alarm is not None)
    reasons = [finding.reason for finding in findings]
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
    if not retrain and spec.remedy.routine is not None:
        return _routine(spec, as_of, performance, [*(alarm.reason for alarm in alarms), verdict, *reasons], alarms)
    remedy, rung = climbed(spec, performance.window.end, alarms, history)
    told = [*(alarm.reason for alarm in alarms), verdict, rung, *(f.reason for f in findings if f.alarm is None)]
    routine = spec.remedy.routine
    if retrain and routine is not None and LADDER.index(remedy) <= LADDER.index(routine):  # no less than on a calm day
        return _routine(spec, as_of, performance, told, alarms, alarmed=True)
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


def _findings(
    config: MonitorConfig,
    as_of: datetime,
    performance: PerformanceReport,
    drift: DriftReport | None,
    champion_evaluation: Evaluation,
    trained_until: datetime,
) -> list[Finding]:
    return [
        *_labelled(config, performance, champion_evaluation),
        *_probe(config, performance.probe),
        _age(config, performance, (as_of - trained_until) / timedelta(days=1)),
        _drift(config, drift),
    ]


def _labelled(config: MonitorConfig, performance: PerformanceReport, champion: Evaluation) -> list[Finding]:
    waits = waits_for_labels(performance, config)
    if waits is not None or performance.scores is None or performance.calibration_gap is None:
        return [Finding(f"labelled figures wait: {waits or 'they were not computed'}")]
    asked_days = MIN_DAY_SHARE * performance.window.length / timedelta(days=1)
    if performance.days < asked_days:
        return [Finding(f"labelled figures wait: outcomes on {performance.days} days, judged from {asked_days:g} on")]
    return [
        _calibration(config.max_calibration_gap, performance.scores, performance.calibration_gap),
        _loss(config.max_log_loss_rise, performance.scores, champion.overall),
    ]


def _calibration(limit: float, scores: Scores, gap: float) -> Finding:
    side = "too high" if gap > 0 else "too low"
    what = "scores" if scores.task == "binary" else calibration_gap(scores)[1]
    unit = " standard deviations of the label" if scores.task == "regression" else ""
    reason = f"calibration gap {abs(gap):.3f}{unit} ({what} {side}), may be {limit:.3f}"
    return _finding(Cause.DECAY, abs(gap), "max_calibration_gap", limit, reason)


def _loss(limit: float | None, now: Scores, at_gate: Scores) -> Finding:
    seen = f"{now.loss_name} {now.told(now.loss)}, {at_gate.told(at_gate.loss)} at the gate"
    if limit is None:
        return Finding(f"{seen}; shown only, [monitor].max_log_loss_rise is not set")
    allowed, rise = at_gate.allowance(limit), now.loss - at_gate.loss
    reason, rule = f"{seen}, may rise {at_gate.told(allowed)}", f"[monitor].max_log_loss_rise = {limit:g}"
    return Finding(
        reason, Alarm(trigger=Cause.DECAY, figure=rise, rule=rule, reason=reason) if rise > allowed else None
    )


def _probe(config: MonitorConfig, probe: ProbeReport | None) -> list[Finding]:
    if probe is None:
        asked = config.min_probe_gain is not None
        return [Finding("no recalibration was tried: too few outcomes in the window or before it")] if asked else []
    seen = (
        f"recalibrated on {probe.fitted_rows:,} outcomes from before, the log loss would be {probe.gain:.4f} lower, "
        f"with {config.probe_confidence:.0%} confidence {probe.gain_low:.4f}"
    )
    if config.min_probe_gain is None:
        return [Finding(f"{seen}; shown only, [monitor].min_probe_gain is not set")]
    reason = f"{seen}; may be {config.min_probe_gain:g}"
    return [_finding(Cause.DECAY, probe.gain_low, "min_probe_gain", config.min_probe_gain, reason)]


def _challenger(config: MonitorConfig, found: ChallengerReport | None) -> list[Finding]:
    if found is None:
        return (
            [Finding("no challenger was made: nothing new to learn, or too few outcomes")] if config.challenger else []
        )
    what = "the champion tuned further" if found.kind == "fine_tune" else "a network that knows what has come since"
    seen = (
        f"{what}, up to {found.learnt_until:%Y-%m-%d}, would have a loss {found.gain:.4f} lower on {found.days} days, with "
        f"{config.probe_confidence:.0%} confidence {found.gain_low:.4f} (known for {found.cpu_seconds:.0f} CPU s)"
    )
    if config.min_challenger_gain is None:
        return [Finding(f"{seen}; shown only, [monitor].min_challenger_gain is not set")]
    reason = f"{seen}; may be {config.min_challenger_gain:g}"
    return [_finding(Cause.DECAY, found.gain_low, "min_challenger_gain", config.min_challenger_gain, reason)]


def _age(config: MonitorConfig, performance: PerformanceReport, days: float) -> Finding:
    limit = config.max_age_days
    reason = f"version {performance.version} was trained on rows until {days:.0f} days ago, may be {limit}"
    return _finding(Cause.AGE, days, "max_age_days", limit, reason)


def _estimated(config: MonitorConfig, performance: PerformanceReport, at_gate: Scores) -> list[Finding]:
    """Only inputs speak here, so what the labels' meaning has moved is not seen; but nothing has to be waited for."""
    limit, estimate, name = config.max_estimated_rise, performance.estimate, LOSS_NAMES[at_gate.task].figure
    if limit is None or estimate is None or name not in estimate.figures:
        return []
    said = estimate.figures[name]
    rise = (said.figure if said.low is None else said.low) - at_gate.loss
    reason = (
        f"{at_gate.loss_name} estimated without outcomes {said}, {at_gate.loss:.4f} at the gate, may rise {limit:.4f}"
    )
    return [_finding(Cause.DECAY, rise, "max_estimated_rise", limit, reason)]


def _volume(config: MonitorConfig, share: float | None) -> list[Finding]:
    limit = config.max_unlearnt_share
    if limit is None or share is None:
        return []
    reason = f"outcomes since its network was trained are {share:.0%} of those it learnt from, may be {limit:.0%}"
    return [_finding(Cause.VOLUME, share, "max_unlearnt_share", limit, reason)]


def _drift(config: MonitorConfig, drift: DriftReport | None) -> Finding:
    if drift is None:
        return Finding("drift was not measured")
    judged = drift.features if drift.verdict is None else drift.verdict.features
    drifted = sum(feature.drifted for feature in judged)
    seen = f"{drifted} of {len(judged)} features drifted"
    if config.max_drift_share is None:
        return Finding(f"{seen}; shown only, [monitor].max_drift_share is not set")
    limit = config.max_drift_share
    return _finding(Cause.DRIFT, drift.share, "max_drift_share", limit, f"{seen}, a share of {limit:.2f} may")


def _finding(cause: Cause, figure: float, key: str, limit: float, reason: str) -> Finding:
    if figure <= limit:
        return Finding(reason)
    return Finding(reason, Alarm(trigger=cause, figure=figure, rule=f"[monitor].{key} = {limit:g}", reason=reason))


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
