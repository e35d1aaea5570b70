"""MLflow: every candidate's run and version, refused ones too, and what it takes to tell its story again (law 7).

The only module that imports MLflow. Nothing here uses its process-wide state (active run, tracking URI), so any thread
may call it. `register` may die after any of its calls and be run again: it finds what it had made by the artifact's
digest. Which version serves stands in Evergreen's `releases` table; the aliases here mirror it.
Called by tasks and by serving. What a run records is said in `lineage.py`.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import numpy as np
import orjson
from pydantic import BaseModel
from sqlalchemy import make_url

# MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

import mlflow.artifacts
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from evergreen.adapters.mlflow import aliases as mlflow_aliases
from evergreen.adapters.mlflow import lineage
from evergreen.adapters.signatures import Signatures
from evergreen.card import model_card
from evergreen.errors import ArtifactError, ConfigurationError, UnknownModel
from evergreen.settings import Settings
from evergreen.spec import ModelSpec
from evergreen.training.artifact import MODEL_FILE, artifact_digest
from evergreen.types import (
    Baselines,
    Cause,
    Digest,
    Evaluation,
    GateDecision,
    ModelVersion,
    Release,
    TrainedModel,
    TrainingSet,
)

LOADER = "evergreen.training.predictor"
"""Its `_load_pyfunc` turns an artifact folder into a model; no pickle is written or read."""
METRICS_A_CALL = 1_000
Record = TypeVar("Record", bound=BaseModel)


class ModelRegistry:
    """Runs, versions, artifacts and aliases, in an MLflow server or in process over its database."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._uri = settings.tracking_uri
        self._client = _open(self._uri)
        self._signatures = Signatures(settings.private_key, settings.public_keys)

    def register(
        self,
        candidate: TrainedModel,
        evaluation: Evaluation,
        champion: Evaluation | None,
        decision: GateDecision,
        cause: Cause,
        spec: ModelSpec,
        tags: Mapping[str, str],
        baselines: Baselines | None = None,
    ) -> ModelVersion:
        """Record a judged candidate as a version, passed or refused; the same artifact and verdict again are the same version.

        Raises `ArtifactError` when the candidate's files are not those that were judged.
        """
        _require_digest(Path(candidate.uri), candidate.digest)
        experiment = self.experiment(spec.name)
        verdict = lineage.verdict(decision)
        known = self._find_version(spec.name, candidate.digest, verdict)
        if known is not None:
            return self._sealed(known)
        run_tags = lineage.run_tags(candidate, decision, cause, spec, tags)
        run_id = (
            self._find_run(experiment, candidate.digest, verdict)
            or self._claim_run(experiment, candidate, run_tags)
            or self.start_run(experiment, run_tags)
        )
        self._log_figures(
            run_id, candidate, lineage.figures(candidate, evaluation, champion, baselines or Baselines()), spec
        )
        self._log_records(
            run_id,
            {
                "training_set": candidate.training_set,
                "candidate": candidate,
                "evaluation": evaluation,
                "champion_evaluation": champion,
                "baselines": baselines,
                "gate": decision,
                "spec": spec,
            },
            model_card(spec, candidate, evaluation, champion, decision, cause),
        )
        model = self._log_model(experiment, run_id, candidate, spec)
        seal = self._signatures.seal(
            spec.name, candidate.digest, _digest_of(_document(decision)), passed=decision.passed
        )
        self._client.set_terminated(run_id)  # before the version: once that exists, nothing is left to do
        version = self._client.create_model_version(
            spec.name,
            source=model.artifact_location,  # models:/ID would be looked up where MLflow's global URI points
            run_id=run_id,
            model_id=model.model_id,
            tags=lineage.version_tags(candidate, decision) | {"evergreen.cause": cause.value, "evergreen.seal": seal},
            description="passed the gate" if decision.passed else "refused: " + "; ".join(decision.reasons),
        )
        return _version(version)

    def version(self, model: str, number: int) -> ModelVersion:
        """One registered version. Raises `UnknownModel` when there is none, `ArtifactError` when it was never judged."""
        try:
            return _version(self._client.get_model_version(model, str(number)))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UnknownModel(
                f"the registry holds no version {number} of {model!r}. Run `retrain`, or name a version it holds."
            ) from error

    def servable(self, model: str, number: int) -> ModelVersion:
        """A version that passed its gate and whose seal says so: what `fetch` then brings may serve.

        Raises `UnknownModel` when there is none, `ArtifactError` when it was refused, or is unsealed or altered.
        """
        version = self.version(model, number)
        try:
            if version.seal is None:
                raise ArtifactError(
                    "nobody sealed it. Register it again through the gate: `retrain` with the same as_of."
                )
            self._signatures.require(
                version.seal, model, version.artifact, self._verdict_digest(version), passed=version.passed
            )
            if not version.passed:
                raise ArtifactError(
                    f"it did not pass its gate ({'; '.join(version.reasons)}). Roll back to a version that did."
                )
        except ArtifactError as error:
            raise ArtifactError(f"{model} version {number} is never served: {error}") from error
        return version

    def fetch(self, version: ModelVersion, into: Path) -> Path:
        """The version's artifact as a local folder under `into`, whole and verified; fetched once, then found there.

        Raises `ArtifactError` when the registry's bytes are not those that were judged.
        """
        target = into / version.artifact.removeprefix("sha256:")
        if target.is_dir():
            try:
                return _require_digest(target, version.artifact)
            except ArtifactError:
                shutil.rmtree(target)  # a copy of ours that somebody touched: fetch it again
        into.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=into, prefix=".fetching-") as scratch:
            fetched = self._download_model(version, scratch)
            _require_digest(fetched, version.artifact)
            try:
                fetched.rename(target)
            except OSError:
                if not target.is_dir():
                    raise  # else: another process was first, with the same bytes
        return _require_digest(target, version.artifact)

    def training_set(self, version: ModelVersion) -> TrainingSet:
        """What the version was trained and judged on."""
        return self._read(version.run_id, "training_set", TrainingSet)

    def candidate(self, version: ModelVersion) -> TrainedModel:
        """How the version was made."""
        return self._read(version.run_id, "candidate", TrainedModel)

    def evaluation(self, version: ModelVersion) -> Evaluation:
        """Its figures at its gate."""
        return self._read(version.run_id, "evaluation", Evaluation)

    def baselines(self, version: ModelVersion) -> Baselines:
        """What plain models came to on its holdout."""
        return self._read(version.run_id, "baselines", Baselines)

    def judgement(self, version: ModelVersion) -> tuple[Evaluation, Evaluation | None, GateDecision]:
        """Its figures, the champion's on the same rows (None: there was none), and the gate's checks."""
        names = {file.path for file in self._client.list_artifacts(version.run_id)}
        champion = None
        if "champion_evaluation.json" in names:
            champion = self._read(version.run_id, "champion_evaluation", Evaluation)
        return self.evaluation(version), champion, self._read(version.run_id, "gate", GateDecision)

    def mirror(self, release: Release) -> None:
        """Make MLflow's aliases and the tag `evergreen.release` say what the release says."""
        mlflow_aliases.mirror(self._client, release)

    def mirrored(self, model: str) -> tuple[dict[str, int], Release | None]:
        """What MLflow shows: version by alias, and the release that was mirrored last. Raises `UnknownModel`."""
        return mlflow_aliases.mirrored(self._client, model)

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

    def _find_version(self, model: str, artifact: Digest, verdict: str) -> ModelVersion | None:
        found = self._client.search_model_versions(
            f"name = '{model}' and tags.`evergreen.artifact` = '{artifact}' and tags.`evergreen.gate` = '{verdict}'"
        )
        return min((_version(version) for version in found), key=lambda version: version.version, default=None)

    def _find_run(self, experiment: str, artifact: Digest, verdict: str) -> str | None:
        mine = f"tags.`evergreen.artifact` = '{artifact}' and tags.`evergreen.gate` = '{verdict}'"
        found = self._client.search_runs([experiment], mine, order_by=["attributes.start_time ASC"], max_results=1)
        return str(found[0].info.run_id) if found else None

    def _claim_run(self, experiment: str, candidate: TrainedModel, tags: Mapping[str, str]) -> str | None:
        """The run the candidate was trained in, now with its verdict: all tags in one write, so that it has both or none."""
        run_id = None if candidate.job is None else self.unjudged_run(experiment, candidate.job)
        if run_id is not None:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return run_id

    def _log_figures(self, run_id: str, candidate: TrainedModel, figures: Mapping[str, float], spec: ModelSpec) -> None:
        run = self._client.get_run(run_id)
        started = run.info.start_time  # the same moment again is the same point, not another
        points = [(name, 0, value) for name, value in figures.items()]
        metrics = [Metric(name, value, started, step) for name, step, value in points + lineage.curve(candidate)]
        # What the run was trained with it says already; a remedy trains with other values than the file's.
        told = lineage.params(candidate, spec).items()
        params = [Param(name, value) for name, value in told if name not in run.data.params]
        self._client.log_batch(run_id, params=params)
        self.log_metrics(run_id, metrics)

    def _log_records(self, run_id: str, records: Mapping[str, BaseModel | None], card: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "card.md").write_text(card)
            for name, record in records.items():
                if record is not None:
                    (Path(scratch) / f"{name}.json").write_bytes(_document(record))
            self._client.log_artifacts(run_id, scratch)

    def _log_model(self, experiment: str, run_id: str, candidate: TrainedModel, spec: ModelSpec) -> LoggedModel:
        """An MLflow model of the candidate's files, linked to its run."""
        mine = f"tags.`evergreen.artifact` = '{candidate.digest}'"
        found = self._client.search_logged_models([experiment], filter_string=mine)
        model = (
            found[0]
            if found
            else self._client.create_logged_model(
                experiment,
                name=spec.name,
                source_run_id=run_id,
                tags={"evergreen.artifact": candidate.digest},
                model_type=spec.model.task,
            )
        )
        if model.status != "READY":
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch) / "model"
                _save_model(folder, run_id, model.model_id, candidate)
                self._client.log_model_artifacts(model.model_id, str(folder))
            self._client.finalize_logged_model(model.model_id, "READY")
        outputs = self._client.get_run(run_id).outputs
        if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=candidate.steps)])
        return model

    def _sealed(self, version: ModelVersion) -> ModelVersion:
        """A known version again; one from before versions were sealed is sealed now, since its gate has just said the same."""
        if version.seal is None:
            verdict = self._verdict_digest(version)
            seal = self._signatures.seal(version.model, version.artifact, verdict, passed=version.passed)
            self._client.set_model_version_tag(version.model, str(version.version), "evergreen.seal", seal)
            return version.model_copy(update={"seal": seal})
        return version

    def _verdict_digest(self, version: ModelVersion) -> Digest:
        """Of the bytes of its gate's record as they are now."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                return _digest_of(
                    Path(self._client.download_artifacts(version.run_id, "gate.json", scratch)).read_bytes()
                )
            except (MlflowException, OSError) as error:
                raise ArtifactError(f"its verdict cannot be read: {error}") from error

    def _download_model(self, version: ModelVersion, scratch: str) -> Path:
        try:
            # Not by version.uri: that is looked up where MLflow's global URI points.
            where = self._client.get_model_version_download_uri(version.model, str(version.version))
            folder = mlflow.artifacts.download_artifacts(where, dst_path=scratch, tracking_uri=self._uri)
            data = Model.load(folder).flavors["python_function"]["data"]
        except (MlflowException, OSError, KeyError) as error:
            raise ArtifactError(
                f"the artifact of {version.uri} cannot be fetched from {self._uri.partition('@')[2] or self._uri}: {error}"
            ) from error
        return Path(folder) / str(data)

    def _read(self, run_id: str, name: str, kind: type[Record]) -> Record:
        with tempfile.TemporaryDirectory() as scratch:
            try:
                path = self._client.download_artifacts(run_id, f"{name}.json", scratch)
                return kind.model_validate_json(Path(path).read_bytes())
            except (MlflowException, OSError, ValueError) as error:
                raise ArtifactError(
                    f"run {run_id} has no readable {name}.json, so it was not written by `retrain`: {error}"
                ) from error


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


def _save_model(folder: Path, run_id: str, model_id: str, candidate: TrainedModel) -> None:
    kinds = {"numeric": DataType.double, "categorical": DataType.string}
    inputs = [ColSpec(kinds[kind], name, required=False) for name, kind in candidate.training_set.features.items()]
    classes = json.loads((Path(candidate.uri) / MODEL_FILE).read_bytes()).get("label", {}).get("classes")
    answers = TensorSpec(np.dtype("float64"), (-1, len(classes))) if classes else ColSpec(DataType.double)
    signature = ModelSignature(inputs=Schema(inputs), outputs=Schema([answers]))
    mlflow.pyfunc.save_model(
        str(folder),
        loader_module=LOADER,
        data_path=candidate.uri,
        mlflow_model=Model(run_id=run_id, model_id=model_id, signature=signature),
        pip_requirements=lineage.requirements(),  # inferring them takes MLflow eleven seconds
    )


def _version(found: Any) -> ModelVersion:
    tags = found.tags
    if "evergreen.artifact" not in tags:
        raise ArtifactError(
            f"version {found.version} of {found.name!r} was not registered by `retrain`: it has no digest and no verdict, "
            "so it is never served. Register models through the gate."
        )
    return ModelVersion(
        model=found.name,
        version=int(found.version),
        uri=f"models:/{found.name}/{found.version}",
        run_id=found.run_id,
        artifact=tags["evergreen.artifact"],
        passed=tags["evergreen.gate"] == "passed",
        reasons=tuple(orjson.loads(tags["evergreen.reasons"])),
        seal=tags.get("evergreen.seal"),
    )


def _document(record: BaseModel) -> bytes:
    return orjson.dumps(record.model_dump(mode="json"), option=orjson.OPT_INDENT_2)


def _digest_of(content: bytes) -> Digest:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _require_digest(folder: Path, expected: Digest) -> Path:
    found = artifact_digest(folder)
    if found != expected:
        raise ArtifactError(
            f"the artifact in {folder} has digest {found}, but {expected} was judged: its bytes changed since. "
            "It is not used; train it again, or restore the registry's files."
        )
    return folder


def _ignore_existing(create: Callable[[], object]) -> None:
    """Somebody else made it first: as good as having made it."""
    try:
        create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
