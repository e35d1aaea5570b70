"""Why was there a retrain, and what came of it: the run's page tells it without a look at the code."""

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from evergreen.monitoring.windows import sample_by_day
from evergreen.spec import ModelSpec
from evergreen.types import GateDecision, ModelVersion, Release, RetrainRequest, TrainingSet, WatchCheck, Window
from evergreen.wiring import wiring


@task(retries=1, retry_delay_seconds=5)
def show_evidence(
    spec: ModelSpec,
    request: RetrainRequest,
    training_set: TrainingSet,
    version: ModelVersion,
    decision: GateDecision,
    release: Release | None,
) -> None:
    """Put the reasons and an Evidently report on the run's page.

    An alarm's report is the one that raised it; a retrain nobody alarmed for gets one of its own, of the held-out rows
    beside the rows it trained on.
    """
    with wiring().records() as records:
        alarmed = records.checks.of_episode(spec.name, request.episode)
    link = alarmed.report_uri if alarmed is not None else None
    create_link_artifact(
        key="evidently-report",
        link=link or _draw_holdout(spec, training_set, version),
        link_text="Evidently: the window that raised the alarm"
        if link
        else "Evidently: held-out rows beside training rows",
    )
    create_markdown_artifact(key="reasons", markdown=reasons(request, alarmed, version, decision, release))


def reasons(
    request: RetrainRequest,
    alarmed: WatchCheck | None,
    version: ModelVersion,
    decision: GateDecision,
    release: Release | None,
) -> str:
    """The story of one retrain in markdown."""
    asked = [f"- {alarm.reason} (`{alarm.rule}`)" for alarm in alarmed.alarms] if alarmed else []
    verdict = [f"- {reason}" for reason in decision.reasons] or [f"- all {len(decision.checks)} checks passed"]
    after = "nothing: the champion stays"
    if release is not None:
        now = f"version {release.champion} is the champion"
        after = now + (
            f", {release.challenger} takes {release.challenger_share:.0%} of the traffic" if release.challenger else ""
        )
    return "\n".join(
        [
            f"### Asked for by *{request.cause}* as of {request.as_of:%Y-%m-%d %H:%M} UTC",
            *asked,
            f"- episode `{request.episode}`: {request.reason}",
            f"### Version {version.version} {'passed' if decision.passed else 'was refused'}",
            *verdict,
            "### What follows",
            f"- {after}",
        ]
    )


def _draw_holdout(spec: ModelSpec, training_set: TrainingSet, version: ModelVersion) -> str:
    from evergreen.adapters.evidently.reports import drift_report
    from evergreen.adapters.feature_tables import load_training_set

    wire = wiring()
    rows = load_training_set(training_set)
    held_out = rows["event_timestamp"] >= training_set.holdout.start
    draw, seed = spec.monitor.report_rows, spec.train.seed
    report = drift_report(
        sample_by_day(rows[~held_out], draw, seed=seed),
        sample_by_day(rows[held_out], draw, seed=seed),
        training_set.features,
        model=spec.name,
        window=training_set.holdout,
        reference_window=Window(start=training_set.window.start, end=training_set.holdout.start),
        html=wire.settings.home / "reports" / f"{spec.name}-version-{version.version}.html",
    )
    return wire.registry.log_file(version.run_id, report.uri, "evidence")
