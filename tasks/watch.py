"""One look at what was served: outcomes, inputs, figures, verdict, event."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd
from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.events import emit_event

from evergreen.adapters.prediction_log import OutcomeCounts
from evergreen.monitoring.drift import drift_verdict
from evergreen.monitoring.faults import find_faults, late_feeds
from evergreen.monitoring.performance import performance
from evergreen.monitoring.policy import decide
from evergreen.monitoring.windows import in_window, known_before, newest_mature, rows_that_show, sample_by_day, searched
from evergreen.spec import ModelSpec
from evergreen.types import (
    ChallengerReport,
    DriftReport,
    Fault,
    ModelVersion,
    PerformanceReport,
    RetrainDecision,
    TrainedModel,
    TrainingSet,
    Window,
)
from evergreen.wiring import Records, Wiring, wiring

EVENT = "evergreen.drift.detected"
PAST_CHECKS = 60
"""How far back the policy may look for the beginning of a stretch of alarms."""


@dataclass(frozen=True)
class Served:
    """What was answered in one window, for the tasks of one run; it does not travel."""

    champion: ModelVersion
    training_set: TrainingSet
    window: Window
    frame: pd.DataFrame
    earlier: pd.DataFrame
    """The champion's answers before the window, with the outcomes that were known when it starts; see `known_before`."""
    searched: pd.DataFrame
    """All answers in the window and some time before, whoever gave them."""
    as_of: datetime


@task(retries=2, retry_delay_seconds=5)
def record_outcomes(spec: ModelSpec, as_of: datetime) -> None:
    """Bring the outcomes of what was answered and has none yet into the prediction log."""
    counts = bring_outcomes(wiring(), spec, as_of)
    if counts is not None:
        get_run_logger().info("outcomes: %s new, %s repeated, %s unknown", counts.new, counts.repeated, counts.unknown)


def bring_outcomes(wire: Wiring, spec: ModelSpec, as_of: datetime) -> OutcomeCounts | None:
    """What `record_outcomes` does; None when nothing waits for its outcome."""
    from evergreen.adapters.feature_tables import read_outcomes

    with wire.records() as records:
        waiting = records.predictions.waiting(spec.name, as_of)
    if waiting.empty:
        return None
    # The end is exclusive, and what became known at this very moment is known.
    known = Window(start=waiting["event_timestamp"].min(), end=as_of + timedelta(microseconds=1))
    outcomes = read_outcomes(wire.settings.data, spec, known)
    outcomes = outcomes[outcomes["example_id"].isin(waiting["example_id"])]
    with wire.records() as records:
        return records.predictions.record_outcomes(spec.name, outcomes, spec.model.task)


@task(retries=2, retry_delay_seconds=5, persist_result=False)
def served_rows(spec: ModelSpec, as_of: datetime) -> Served | None:
    """Load the newest window whose labels are in; None, with the reason in the log, when there is none."""
    wire = wiring()
    with wire.records() as records:
        release = records.releases.current(spec.name)
        frame = records.predictions.frame(spec.name, searched(as_of, spec.monitor), as_of)
    window = newest_mature(frame, as_of=as_of, config=spec.monitor)
    if release is None or release.champion is None:
        _show_not_judged(spec, "it has no champion")
        return None
    if window is None:
        days, share = spec.monitor.window_days, spec.monitor.min_label_share
        where = searched(as_of, spec.monitor)
        _show_not_judged(spec, f"{len(frame):,} answers in {where}, no {days} days of which {share:.0%} have outcomes")
        return None
    champion = wire.registry.version(spec.name, release.champion)
    earlier = known_before(frame[frame["version"] == champion.version], window.start)
    learnt = wire.registry.training_set(champion)
    return Served(champion, learnt, window, in_window(frame, window), earlier, frame, as_of)


def _show_not_judged(spec: ModelSpec, why: str) -> None:
    create_markdown_artifact(key="watch", markdown=f"**{spec.name}** was not judged: {why}.")
    get_run_logger().warning("%s was not judged: %s", spec.name, why)


@task(retries=1, retry_delay_seconds=5, persist_result=False)
def compare_inputs(spec: ModelSpec, served: Served) -> DriftReport | None:
    """Draw the Evidently page of the champion's answers beside its training rows; keep it with its run.

    None where the champion answered nothing in the window: it is newer than the window.
    """
    from evergreen.adapters.evidently.reports import drift_report
    from evergreen.adapters.evidently.workspace import EvidentlyWorkspace

    answers = served.frame[served.frame["version"] == served.champion.version]
    if answers.empty:
        return None
    wire = wiring()
    trained_on = _trained_on(served)
    rows, runs, seed = spec.monitor.report_rows, spec.monitor.evidently_runs, spec.train.seed
    inputs = served.training_set.features
    verdict = drift_verdict(trained_on, answers, inputs, spec.monitor, seed)
    report = drift_report(
        sample_by_day(trained_on, rows, seed=seed),
        sample_by_day(answers, rows, seed=seed),
        inputs,
        model=spec.name,
        window=served.window,
        reference_window=Window(start=served.training_set.window.start, end=served.training_set.holdout.start),
        html=wire.settings.home / "reports" / f"{spec.name}-{served.window.end:%Y-%m-%d}.html",
        score="score",
        label="label",
        task=spec.model.task,
        verdict=verdict,
        workspace=EvidentlyWorkspace(wire.settings.home / "evidently", runs) if runs else None,
    )
    link = wire.registry.log_file(served.champion.run_id, report.uri, "watch")
    create_link_artifact(key="evidently-report", link=link, link_text=f"Evidently: {served.window}")
    scores = drift_verdict(served.earlier, answers, {"score": "numeric"}, spec.monitor, seed)
    return report.model_copy(update={"uri": link, "predictions": scores})


@task(retries=1, retry_delay_seconds=5, persist_result=False)
def look_for_faults(spec: ModelSpec, served: Served) -> tuple[Fault, ...]:
    """Is what was answered from broken data? What is found stands in the run's log and holds retrains back."""
    from evergreen.adapters.feature_tables import known_moments

    wire = wiring()
    inputs = served.training_set.features
    tables = (spec.data.examples, spec.data.labels, *wire.features.tables(spec.data.feature_service))
    found = late_feeds(known_moments(wire.settings.data, tables, served.as_of), served.as_of)
    # Whichever version answered: what broke before the champion came is broken too, and would be learnt.
    rows = rows_that_show(served.searched, tuple(inputs), served.champion.version)
    answers = in_window(rows, served.window)
    if not answers.empty:
        earlier = rows[rows["event_timestamp"] < served.window.start]
        found += find_faults(_trained_on(served), earlier, answers, inputs)
    for fault in found:
        get_run_logger().error("the data is broken: %s", fault.reason)
    return found


def _trained_on(served: Served) -> pd.DataFrame:
    from evergreen.adapters.feature_tables import load_training_set

    rows = load_training_set(served.training_set)
    return rows[rows["event_timestamp"] < served.training_set.holdout.start]


@task(persist_result=False)
def measure_performance(spec: ModelSpec, served: Served) -> PerformanceReport:
    """Hold what the champion said beside what came true."""
    return performance(
        served.frame,
        model=spec.name,
        version=served.champion.version,
        window=served.window,
        config=spec.monitor,
        task=spec.model.task,
        earlier=served.earlier,
        slices=spec.data.slices,
        seed=spec.train.seed,
    )


@task(persist_result=False)
def decide_retrain(
    spec: ModelSpec,
    served: Served,
    measured: PerformanceReport,
    drift: DriftReport | None,
    faults: tuple[Fault, ...],
    challenger: ChallengerReport | None = None,
) -> RetrainDecision:
    """Ask the policy, put its reasons on the run's page, and record the check."""
    wire = wiring()
    made = wire.registry.candidate(served.champion)
    with wire.records() as records:
        history = records.checks.history(spec.name, served.window.end, PAST_CHECKS)
        decision = decide(
            spec=spec,
            as_of=served.as_of,
            performance=measured,
            drift=drift,
            champion_evaluation=wire.registry.evaluation(served.champion),
            trained_until=made.trained_anew_until,
            history=history,
            faults=faults,
            unlearnt_share=unlearnt_share(records, spec, made, served.as_of),
            challenger=challenger,
        )
        records.checks.record(decision, drift, measured)
    create_table_artifact(
        key="watch",
        table=[{"retrain": decision.retrain, "reason": reason} for reason in decision.reasons],
        description=f"**{spec.name}** version {served.champion.version} in {served.window}",
    )
    get_run_logger().info("retrain: %s; %s", decision.retrain, "; ".join(decision.reasons))
    return decision


def unlearnt_share(records: Records, spec: ModelSpec, made: TrainedModel, as_of: datetime) -> float | None:
    """Outcomes of what was answered since the champion's network was trained, of the rows it learnt from.

    None unless the spec asks. What a fine-tune learnt since counts as unlearnt: its network is no wider for it.
    """
    if spec.monitor.max_unlearnt_share is None:
        return None
    new = records.predictions.outcomes_since(spec.name, made.trained_anew_until, as_of)
    return new / max(made.trained_anew_rows, 1)


@task(retries=2, retry_delay_seconds=1)
def announce(spec: ModelSpec, decision: RetrainDecision) -> None:
    """Emit the event; `prefect.yaml` turns it into a run of `retrain` with these parameters."""
    emit_event(
        event=EVENT,
        resource={"prefect.resource.id": f"evergreen.model.{spec.name}", "prefect.resource.name": spec.name},
        payload={
            "model": spec.name,
            "as_of": decision.as_of.isoformat(),
            "cause": decision.cause.value,
            "episode": decision.episode,
            "remedy": decision.remedy.value,
            "reasons": list(decision.reasons),
        },
    )
    get_run_logger().info("emitted %s for episode %s", EVENT, decision.episode)
