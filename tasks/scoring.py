"""Score a window in process, through serving's own scoring and log."""

import atexit
from functools import cache

from prefect import get_run_logger, task

from evergreen.errors import ArtifactError, DataError
from evergreen.spec import ModelSpec
from evergreen.types import Window
from evergreen.wiring import wiring
from serving.runtime import Runtime

CHUNK_ROWS = 20_000
"""Rows joined and scored at a time, so that memory does not follow the window."""
FLUSH_SECONDS = 300.0


@cache
def runtime() -> Runtime:
    """This process's scorer; a later call sees later releases, loaded versions are kept."""
    opened = Runtime.open(wiring(), follow=False)
    atexit.register(opened.close)
    return opened


@task(retries=1, retry_delay_seconds=5)
def score_window(spec: ModelSpec, window: Window) -> int:
    """Answer the window's examples that have no answer yet, each with features as of its own moment."""
    from evergreen.adapters.feature_tables import read_examples

    wire = wiring()
    with wire.records() as records:
        answered = records.predictions.answered(spec.name, window)
    examples = read_examples(wire.settings.data, spec, window, window.end)
    examples = examples[~examples["example_id"].isin(answered)]
    serving = runtime()
    serving.models.refresh()
    loaded = serving.models.named(spec.name)
    if (reason := serving.models.reason(spec.name)) is not None:
        raise ArtifactError(f"{spec.name} would be scored with an older version than the released one: {reason}")
    lost_before = serving.log.lost_rows
    for start in range(0, len(examples), CHUNK_ROWS):
        chunk = examples.iloc[start : start + CHUNK_ROWS]
        serving.scorer.answer_joined(loaded, wire.features.historical(spec.data.feature_service, chunk))
    written = serving.log.flush(FLUSH_SECONDS)
    if not written or serving.log.lost_rows > lost_before:
        raise DataError(
            f"the prediction log did not take all of {len(examples):,} answers; run again when the database answers: "
            "what is in the log is not scored twice"
        )
    get_run_logger().info("%s examples of %s answered", f"{len(examples):,}", window)
    return len(examples)
