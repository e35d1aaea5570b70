"""Pictures of a training and its verdict: on the run's page and in its MLflow run."""

import base64
import tempfile
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from evergreen.spec import ModelSpec
from evergreen.types import Evaluation, ModelVersion, TrainedModel
from evergreen.verdict import day_changes
from evergreen.wiring import wiring


@task(retries=1, retry_delay_seconds=5)
def draw(
    spec: ModelSpec,
    candidate: TrainedModel,
    evaluation: Evaluation,
    champion: Evaluation | None,
    version: ModelVersion,
) -> None:
    """Draw how it learnt, how far what it says is what comes true, its days beside the champion's, and what it leans on."""
    from evergreen.adapters.plots import daily_difference, importances, reliability_diagram, training_curve

    name = f"{spec.name} version {version.version}"
    if candidate.curve:
        _show(version, "training-curve", training_curve(candidate.curve, f"{name}: training"), str(candidate.cost))
    if evaluation.reliability:
        title = f"{name}: calibration on {evaluation.holdout}"
        days = f"{evaluation.overall.rows:,} held-out rows of {evaluation.days} days"
        _show(version, "calibration", reliability_diagram(evaluation, champion, title), days)
    if champion is not None:
        title = f"{name} beside the champion: below 0 it was better that day"
        _show(
            version, "day-by-day", daily_difference(day_changes(evaluation, champion), title), str(evaluation.holdout)
        )
    if evaluation.attribution is not None:
        found = evaluation.attribution
        words = f"{found.rows:,} held-out rows of {found.days} days"
        _show(version, "attribution", importances(found, f"{name}: what it leans on"), words)


def _show(version: ModelVersion, key: str, png: bytes, words: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{key}.png"
        path.write_bytes(png)
        link = wiring().registry.log_file(version.run_id, path, "plots")
    picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    create_markdown_artifact(key=key, markdown=f"![{key}]({picture})\n\n{words} · [in MLflow]({link})")
