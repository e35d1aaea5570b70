"""MLflow's runs: where they are kept, how one is made and found again, and what lies in it.

Opens MLflow for `registry.py` and `training_runs.py`. What a run records is said in `lineage.py`.
"""

import fcntl
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import orjson
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from pydantic import BaseModel
from sqlalchemy import make_url

from evergreen.adapters.mlflow import lineage
from evergreen.errors import ArtifactError, ConfigurationError
from evergreen.settings import Settings
from evergreen.spec import ModelSpec
from evergreen.types import Digest, GateDecision, TrainedModel

METRICS_A_CALL = 1_000
Record = TypeVar("Record", bound=BaseModel)


class Runs:
    """Runs by experiment, in an MLflow server or in process over its database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._uri = settings.tracking_uri
        self._client = _open(self._uri)

    def log_file(self, run_id: str, path: Path | str, folder: str) -> str:
        """Keep a file with a run; returns the address of its page. The same name again replaces it."""
        self._client.log_artifact(run_id, str(path), folder)
        return f"{self.run_url(run_id)}/artifacts/{quote(folder)}/{quote(Path(path).name)}"

    def run_url(self, run_id: str) -> str:
        """The address of a run's page."""
        experiment = self._client.get_run(run_id).info.experiment_id
        return f"{self._settings.mlflow_ui_url.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    @property
    def client(self) -> MlflowClient:
        """MLflow's own, for `training_runs.py`."""
        return self._client

    def unjudged_run(self, experiment: str, job: Digest) -> str | None:
        """The run in which a job trains or has trained, while no verdict is about it."""
        mine = f"tags.`evergreen.job` = '{job}'"
        found = self._client.search_runs([experiment], mine, order_by=["attributes.start_time ASC"])
        return next((str(run.info.run_id) for run in found if "evergreen.gate" not in run.data.tags), None)

    def start_run(self, experiment: str, tags: Mapping[str, str]) -> str:
        """Make a run that bears these tags from its first moment."""
        name = f"{tags['evergreen.model']} as of {tags['evergreen.as_of'][:10]}"
        return str(self._client.create_run(experiment, tags=dict(tags), run_name=name).info.run_id)

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log any number of points."""
        for start in range(0, len(metrics), METRICS_A_CALL):
            self._client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_CALL])

    def experiment(self, model: str) -> str:
        """The experiment and the registered model of that name, made where missing."""
        _ignore_existing(lambda: self._client.create_registered_model(model))
        found = self._client.get_experiment_by_name(model)
        if found is None:
            # Without a server nobody else says where files go.
            local = None if self._uri.startswith("http") else (self._settings.home / "mlartifacts").resolve().as_uri()
            _ignore_existing(lambda: self._client.create_experiment(model, artifact_location=local))
            found = self._client.get_experiment_by_name(model)
        assert found is not None
        return str(found.experiment_id)

    def judged_run(self, experiment: str, artifact: Digest, decision: GateDecision) -> str | None:
        """The run that has an artifact and a verdict about it."""
        mine = lineage.about(artifact, decision)
        found = self._client.search_runs([experiment], mine, order_by=["attributes.start_time ASC"])
        return next((str(run.info.run_id) for run in found if lineage.says(run.data.tags, decision)), None)

    def log_figures(self, run_id: str, candidate: TrainedModel, figures: Mapping[str, float], spec: ModelSpec) -> None:
        """Log what a candidate came to, its curve and its parameters; what the run has already stays."""
        run = self._client.get_run(run_id)
        started = run.info.start_time  # the same moment again is the same point, not another
        points = [(name, 0, value) for name, value in figures.items()]
        metrics = [Metric(name, value, started, step) for name, step, value in points + lineage.curve(candidate)]
        # What the run was trained with it says already; a remedy trains with other values than the file's.
        told = lineage.params(candidate, spec).items()
        params = [Param(name, value) for name, value in told if name not in run.data.params]
        self._client.log_batch(run_id, params=params)
        self.log_metrics(run_id, metrics)

    def log_records(self, run_id: str, records: Mapping[str, BaseModel | None], card: str) -> None:
        """Keep each record as NAME.json, and the model card."""
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "card.md").write_text(card)
            for name, record in records.items():
                if record is not None:
                    (Path(scratch) / f"{name}.json").write_bytes(document(record))
            self._client.log_artifacts(run_id, scratch)

    def read(self, run_id: str, name: str, kind: type[Record]) -> Record:
        """One of its records. Raises `ArtifactError` where there is none that can be read."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                path = self._client.download_artifacts(run_id, f"{name}.json", scratch)
                return kind.model_validate_json(Path(path).read_bytes())
            except (MlflowException, OSError, ValueError) as error:
                raise ArtifactError(
                    f"run {run_id} has no readable {name}.json, so it was not written by `retrain`: {error}"
                ) from error


def document(record: BaseModel) -> bytes:
    """As a run keeps it."""
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2)


def _open(uri: str) -> MlflowClient:
    if uri.startswith("file:") or "://" not in uri:
        raise ConfigurationError(
            f"EVERGREEN_MLFLOW_TRACKING_URI is {uri!r}; MLflow no longer keeps runs in plain files. "
            "Use sqlite:///FILE, a Postgres URL, or a server's http:// address."
        )
    with _first_use(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """MLflow makes its tables when first opened, and two processes that do so at once on one file break each other."""
    database = make_url(uri).database if uri.startswith("sqlite") else None
    if database is None:
        yield
        return
    Path(database).parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{database}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the kernel releases it when its holder dies
        yield


def _ignore_existing(create: Callable[[], object]) -> None:
    """Somebody else made it first: as good as having made it."""
    try:
        create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
