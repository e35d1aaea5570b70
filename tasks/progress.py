"""Who sees how far a training is: a bar on the terminal, the run's page in Prefect, the job's run in MLflow."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.runtime import flow_run

from evergreen.errors import TrainingAbandoned
from evergreen.rival import Rival
from evergreen.types import Abandoned, Cost, Progress
from evergreen.wiring import wiring

if TYPE_CHECKING:
    from evergreen.adapters.mlflow.training_runs import TrainingRun
    from evergreen.training.run.job import TrainingJob

PAGE_SECONDS = 3.0
"""Between two updates of the run's page."""


@contextmanager
def shown(job: "TrainingJob", rival: Rival | None = None) -> Iterator[Callable[[Progress], None]]:
    """What the ranks should be given to tell their progress to; it costs them nothing, whoever is slow or away.

    It raises `TrainingAbandoned` when the run can no longer beat its rival.
    """
    from evergreen.training.progress.bars import TrainingBars, someone_watches
    from evergreen.training.progress.listeners import Listener

    trouble = get_run_logger().warning
    page, run = ProgressPage(job.spec.name), MlflowRun(job)
    with ExitStack() as stack:
        listeners: list[Callable[[Progress], None]] = [
            stack.enter_context(Listener("Prefect", page.tell, trouble, PAGE_SECONDS)),
            stack.enter_context(Listener("MLflow", run.tell, trouble)),
        ]
        if someone_watches():
            listeners.append(stack.enter_context(TrainingBars(f"training {job.spec.name}")))

        def tell(progress: Progress) -> None:
            for listener in listeners:
                listener(progress)
            if rival is not None and (reason := rival.beats(progress)) is not None:
                raise TrainingAbandoned(reason)

        yield tell


class ProgressPage:
    """The bar on the flow run's page."""

    def __init__(self, model: str) -> None:
        self._key = f"training-{model.replace('_', '-')}"
        self._artifact: UUID | None = None

    def tell(self, rows: Sequence[Progress]) -> None:
        """Show the newest row."""
        newest = rows[-1]
        percent, words = 100 * newest.step / newest.steps, str(newest)
        if self._artifact is None:
            self._artifact = cast(UUID, create_progress_artifact(percent, key=self._key, description=words))
        else:
            update_progress_artifact(self._artifact, percent, description=words)


class MlflowRun:
    """The job's run in MLflow, opened when there is first something to tell: a finished job has nothing."""

    def __init__(self, job: "TrainingJob") -> None:
        self._job = job
        self._tags = flow_tags()
        self._run: TrainingRun | None = None

    def tell(self, rows: Sequence[Progress]) -> None:
        """Log the rows as metrics."""
        self._open().tell(rows)

    def ended(self, status: str, reason: str, cost: Cost | None) -> str:
        """Close a run that comes to no version; returns the address of its page."""
        return wiring().registry.run_url(self._open().ended(status, reason, cost))

    def _open(self) -> "TrainingRun":
        from evergreen.adapters.mlflow.training_runs import TrainingRun

        if self._run is None:
            self._run = TrainingRun(wiring().registry, self._job, self._tags)
        return self._run


def abandoned(job: "TrainingJob", end: TrainingAbandoned) -> Abandoned:
    """Write into MLflow that a training was given up, why, and what it cost."""
    from evergreen.training.run.spending import spent

    cost = spent(job.spent_path, wiring().settings.rates)
    link = MlflowRun(job).ended("KILLED", str(end), cost)
    create_markdown_artifact(key="training", markdown=f"**{job.spec.name}** was {end}.\n\n{cost} · [in MLflow]({link})")
    get_run_logger().info("%s; it cost %s", end, cost)
    return Abandoned(model=job.spec.name, job=job.digest, reason=str(end), cost=cost)


def failed(job: "TrainingJob", error: Exception) -> None:
    """Write into MLflow why a training broke and what it cost; where MLflow is away too, the log says so."""
    from evergreen.training.run.spending import spent

    try:
        MlflowRun(job).ended("FAILED", str(error), spent(job.spent_path, wiring().settings.rates))
    except Exception as trouble:  # the breakage itself is what the caller must hear of
        get_run_logger().warning("that the training failed could not be written into MLflow: %s", trouble)


def flow_tags() -> dict[str, str]:
    """By which MLflow's pages lead back to Prefect's."""
    return {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_url": str(flow_run.ui_url)}
