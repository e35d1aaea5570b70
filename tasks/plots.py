"""Pictures of a training: on the run's page and in its MLflow run."""

import base64
import tempfile
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from evergreen.spec import ModelSpec
from evergreen.types import Evaluation, ModelVersion, TrainedModel
from evergreen.wiring import wiring


@task(retries=1, retry_delay_seconds=5)
def draw(
    spec: ModelSpec,
    candidate: TrainedModel,
    evaluation: Evaluation,
    champion: Evaluation | None,
    version: ModelVersion,
) -> None:
    """Draw how it learnt, and how far what it says is what comes true."""
    from evergreen.adapters.plots import reliability_diagram, training_curve

    name = f"{spec.name} version {version.version}"
    if candidate.curve:
        _show(version, "training-curve", training_curve(candidate.curve, f"{name}: training"), str(candidate.cost))
    if evaluation.reliability:
        title = f"{name}: calibration on {evaluation.holdout}"
        days = f"{evaluation.overall.rows:,} held-out rows of {evaluation.days} days"
        _show(version, "calibration", reliability_diagram(evaluation, champion, title), days)


def _show(version: ModelVersion, key: str, png: bytes, words: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{key}.png"
        path.write_bytes(png)
        link = wiring().registry.log_file(version.run_id, path, "plots")
    picture = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    create_markdown_artifact(key=key, markdown=f"![{key}]({picture})\n\n{words} · [in MLflow]({link})")
