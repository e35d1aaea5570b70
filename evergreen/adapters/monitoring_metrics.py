"""What the watch found last, for Prometheus: read from Evergreen's tables when asked, one set of gauges a model.

Only the newest look and the newest estimate of each model are read, so a scrape costs the same whatever the traffic.
A figure that is not known has no line: alert on its absence, or on `evergreen_monitoring_last_watch_timestamp_seconds`,
which is in logical time as is everything else here. Called by `serving/monitoring.py`. To export another figure, add a
gauge and set it in `_fill`.
"""

from collections.abc import Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from evergreen.adapters.estimates import WindowEstimates
from evergreen.adapters.releases import ReleaseStore
from evergreen.adapters.watch_history import WatchHistory
from evergreen.types import LOSS_NAMES, Cause, JournalEntry, WatchRecord, WindowEstimate

LOSSES = tuple({name.figure for name in LOSS_NAMES.values()})


class _Gauges:
    """Everything that is exported, of all models."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"evergreen_monitoring_{name}", says, ("model", *labels), registry=self.registry)

        self.realised_loss = gauge("realised_loss", "Loss that came true in the newest judged window", "figure")
        self.estimated_loss = gauge("estimated_loss", "Loss estimated for the newest window", "figure")
        self.estimate_error = gauge(
            "estimate_error", "Estimated less realised loss of the newest window that has both", "figure"
        )
        self.calibration_gap = gauge("calibration_gap", "Mean score less what came true in the newest judged window")
        self.label_share = gauge("label_share", "Share of the newest window's outcomes that were in at the last look")
        self.drift_share = gauge("drift_share", "Share of the features that drifted in the newest judged window")
        self.alarms = gauge("alarm", "1 where the newest look alarms for this cause", "cause")
        self.faults = gauge("faults_open", "Data faults in the newest look; retrains are held back while there are any")
        self.champion_age = gauge("champion_age_seconds", "Since the champion took over")
        self.last_watch = gauge("last_watch_timestamp_seconds", "The moment whose knowledge the newest look used")


def monitoring_metrics(
    watched: WatchHistory, estimates: WindowEstimates, releases: ReleaseStore, now: datetime
) -> bytes:
    """Prometheus' text format of every model that was released or looked at, as of `now` (logical time)."""
    gauges = _Gauges()
    for model in sorted({*watched.models(), *releases.models()}):
        _fill(
            gauges,
            model,
            next(iter(watched.records(model, 1, before=now)), None),
            estimates.history(model, 10, before=now),
            releases.journal(model),
            now,
        )
    return generate_latest(gauges.registry)


def _fill(
    gauges: _Gauges,
    model: str,
    newest: WatchRecord | None,
    said: Sequence[WindowEstimate],
    journal: Sequence[JournalEntry],
    now: datetime,
) -> None:
    if newest is not None:
        _fill_look(gauges, model, newest)
    if said:
        gauges.label_share.labels(model).set(said[0].label_share)
        told = said[0].estimate.figures if said[0].estimate is not None else {}
        for name in LOSSES:
            if name in told:
                gauges.estimated_loss.labels(model, name).set(told[name].figure)
            errors = [one.errors[name] for one in said if name in one.errors]
            if errors:
                gauges.estimate_error.labels(model, name).set(errors[0])
    since = _champion_since(journal)
    if since is not None:
        gauges.champion_age.labels(model).set(max((now - since).total_seconds(), 0.0))
    looks = [one.as_of for one in (*said[:1], *((newest,) if newest is not None else ()))]
    if looks:
        gauges.last_watch.labels(model).set(max(looks).timestamp())


def _fill_look(gauges: _Gauges, model: str, newest: WatchRecord) -> None:
    seen, alarms = newest.performance, newest.check.alarms
    if seen.scores is not None:
        gauges.realised_loss.labels(model, LOSS_NAMES[seen.scores.task].figure).set(seen.scores.loss)
    if seen.calibration_gap is not None:
        gauges.calibration_gap.labels(model).set(seen.calibration_gap)
    if newest.drift is not None:
        gauges.drift_share.labels(model).set(newest.drift.share)
    for cause in (Cause.DRIFT, Cause.DECAY, Cause.AGE):
        gauges.alarms.labels(model, cause.value).set(any(alarm.trigger == cause for alarm in alarms))
    gauges.faults.labels(model).set(sum(alarm.trigger == Cause.FAULT for alarm in alarms))


def _champion_since(journal: Sequence[JournalEntry]) -> datetime | None:
    """Logical time at which the present champion took over; None where there is none."""
    since, champion = None, None
    for entry in journal:
        if entry.after.champion != champion:
            since, champion = entry.at, entry.after.champion
    return since if champion is not None else None
