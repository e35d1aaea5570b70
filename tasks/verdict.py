"""The verdict's page: kept with the version in MLflow, beside the same as JSON, and shown on the run's page."""

import tempfile
from pathlib import Path

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from evergreen.spec import ModelSpec
from evergreen.types import (
    Baselines,
    Cause,
    Footprint,
    ModelVersion,
    Parity,
    TrainedModel,
    Verdict,
)
from evergreen.verdict import render, summary
from evergreen.wiring import wiring
from tasks.gate import champion_of

FOLDER = "verdict"
"""Of the version's MLflow run."""


@task(retries=1, retry_delay_seconds=5)
def show_verdict(
    spec: ModelSpec,
    version: ModelVersion,
    cause: Cause,
    candidate: TrainedModel,
    baselines: Baselines,
    footprint: Footprint,
    parity: Parity | None,
) -> None:
    """Write the page for passed and refused versions alike, of the judgement that is sealed with the version.

    A version that was known keeps its first one, whatever was decided now. Written again, the page replaces itself.
    """
    evaluation, champion, decision = wiring().registry.judgement(version)
    serving = champion_of(spec)
    beaten = champion is not None and serving is not None and serving.artifact == champion.artifact
    verdict = Verdict(
        version=version,
        owner=spec.model.owner,
        cause=cause,
        candidate=candidate,
        decision=decision,
        evaluation=evaluation,
        champion=champion,
        champion_version=serving.version if serving is not None and beaten else None,
        baselines=baselines,
        footprint=footprint,
        parity=parity,
        confidence=spec.gate.confidence,
    )
    with tempfile.TemporaryDirectory() as scratch:
        page, record = Path(scratch) / "verdict.html", Path(scratch) / "verdict.json"
        page.write_text(render(verdict))
        record.write_text(verdict.model_dump_json(indent=2))
        wiring().registry.log_file(version.run_id, record, FOLDER)
        link = wiring().registry.log_file(version.run_id, page, FOLDER)
    create_link_artifact(
        key="verdict-page", link=link, link_text=f"The verdict on {spec.name} version {version.version}"
    )
    create_markdown_artifact(key="verdict", markdown=summary(verdict, link))
