"""What alarms? Each trigger of `[monitor]` looks at one window's reports and says what it saw.

Pure; thresholds come from the model's file. To add a trigger, write a function that returns a `Finding` and call it in
`findings`. What is done about an alarm is `policy.py`'s.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from evergreen.evaluation import calibration_gap
from evergreen.monitoring.performance import waits_for_labels
from evergreen.spec import MonitorConfig
from evergreen.types import (
    LOSS_NAMES,
    Alarm,
    Cause,
    ChallengerReport,
    DriftReport,
    Evaluation,
    PerformanceReport,
    ProbeReport,
    Scores,
)

MIN_DAY_SHARE = 0.5
"""A version is judged on labels once they span this share of the window's days: one bad day is weather, not decay."""


@dataclass(frozen=True)
class Finding:
    """What one trigger saw: a sentence always, an alarm if its rule was broken."""

    reason: str
    alarm: Alarm | None = None


def findings(
    config: MonitorConfig,
    as_of: datetime,
    performance: PerformanceReport,
    drift: DriftReport | None,
    champion_evaluation: Evaluation,
    trained_until: datetime,
    unlearnt_share: float | None,
    challenger: ChallengerReport | None,
) -> list[Finding]:
    """Of every trigger, from what `policy.decide` is given."""
    return [
        *_labelled(config, performance, champion_evaluation),
        *_probe(config, performance.probe),
        _age(config, performance, (as_of - trained_until) / timedelta(days=1)),
        _drift(config, drift),
        *_estimated(config, performance, champion_evaluation.overall),
        *_volume(config, unlearnt_share),
        *_challenger(config, challenger),
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
