"""MLflow while a model trains: the run is there from the first step, shows how far it is, and is the one `register` fills.

A run belongs to a job and is found by the job's digest, so one that was killed goes on in the same run, and what it had
told is not told twice. It goes through the client of `runs.py`.
Called by `tasks/training.py`.
"""

import time
from collections.abc import Mapping, Sequence

from mlflow.entities import Metric, Param, RunTag

from evergreen.adapters.mlflow import lineage
from evergreen.adapters.mlflow.runs import Runs
from evergreen.training.run.job import TrainingJob
from evergreen.types import Cost, Progress

REASON = "evergreen.reason"
"""Tag: why a run ended without a version."""


class TrainingRun:
    """The run of one job, found or made when there is first something to tell. Used by one thread at a time."""

    def __init__(self, runs: Runs, job: TrainingJob, tags: Mapping[str, str]) -> None:
        self._runs, self._job, self._tags = runs, job, tags
        self._run_id: str | None = None
        self._reached = -1

    def tell(self, rows: Sequence[Progress]) -> None:
        """Log them as metrics `live/…`; steps the run already has are left out. Raises where MLflow does not answer."""
        run_id = self._open()
        now = int(time.time() * 1000)
        fresh = [row for row in rows if row.step > self._reached]
        metrics = [Metric(name, value, now, row.step) for row in fresh for name, value in lineage.live(row).items()]
        self._runs.log_metrics(run_id, metrics)
        self._reached = max([self._reached, *(row.step for row in fresh)])

    def ended(self, status: str, reason: str, cost: Cost | None) -> str:
        """Close a run that comes to no version, with why and what it cost; returns its id."""
        run_id = self._open()
        client = self._runs.client
        client.set_tag(run_id, REASON, reason[:5000])
        if cost is not None:
            now = client.get_run(run_id).info.start_time
            found = lineage.cost_figures(cost).items()
            client.log_batch(run_id, metrics=[Metric(name, value, now, 0) for name, value in found])
        client.set_terminated(run_id, status)
        return run_id

    def _open(self) -> str:
        if self._run_id is None:
            experiment = self._runs.experiment(self._job.spec.name)
            found = self._runs.unjudged_run(experiment, self._job.digest)
            self._run_id = self._start(experiment) if found is None else self._go_on(found)
        return self._run_id

    def _start(self, experiment: str) -> str:
        tags = lineage.job_tags(self._job) | dict(self._tags)
        run_id = self._runs.start_run(experiment, tags)
        params = lineage.train_params(self._job.spec)
        self._runs.client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
        return run_id

    def _go_on(self, run_id: str) -> str:
        client = self._runs.client
        client.update_run(run_id, status="RUNNING")  # it may have failed, or been given up by another rule
        if REASON in client.get_run(run_id).data.tags:
            client.delete_tag(run_id, REASON)
        client.log_batch(run_id, tags=[RunTag(name, value) for name, value in self._tags.items()])
        told = client.get_metric_history(run_id, "live/memory_bytes")
        self._reached = max((point.step for point in told), default=-1)
        return run_id
