"""MLflow: every candidate's run and version, refused ones too, and what it takes to tell its story again (law 7).

Nothing here uses MLflow's process-wide state (active run, tracking URI), so any thread may call it. `register` may die
after any of its calls and be run again: it finds what it had made by the artifact's digest and the verdict. Which version
serves stands in Evergreen's `releases` table; the aliases here mirror it. Called by tasks and by serving; stands on
`runs.py`, and on `seals.py` for who vouches for a version.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import orjson
from mlflow.entities import LoggedModel, LoggedModelOutput, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from pydantic import BaseModel

from evergreen.adapters.mlflow import aliases as mlflow_aliases
from evergreen.adapters.mlflow import lineage, seals
from evergreen.adapters.mlflow.runs import Runs
from evergreen.adapters.signatures import Signatures
from evergreen.card import model_card
from evergreen.errors import ArtifactError, UnknownModel
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


class ModelRegistry(Runs):
    """Runs, and the versions, artifacts and aliases that come of them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
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
        """Record a judged candidate as a version, passed or refused.

        The same artifact and verdict again, which of a refusal is its reasons, are the same version: it keeps its first
        judgement while its seal holds, and gets this one, sealed, where the seal is missing, of a key that is trusted no
        more, or of other bytes. Raises `ArtifactError` when the candidate's files, or the registry's of a version that
        needs a new seal, are not those that were judged.
        """
        _require_digest(Path(candidate.uri), candidate.digest)
        experiment = self.experiment(spec.name)
        records = {
            "training_set": candidate.training_set,
            "candidate": candidate,
            "evaluation": evaluation,
            "champion_evaluation": champion,
            "baselines": baselines,
            "gate": decision,
            "spec": spec,
        }
        card = model_card(spec, candidate, evaluation, champion, decision, cause)
        known = self._find_version(spec.name, candidate.digest, decision)
        if known is not None:
            return self._sealed(known, decision, records, card)
        run_tags = lineage.run_tags(candidate, decision, cause, spec, tags)
        run_id = (
            self.judged_run(experiment, candidate.digest, decision)
            or self._claim_run(experiment, candidate, run_tags)
            or self.start_run(experiment, run_tags)
        )
        self.log_figures(
            run_id, candidate, lineage.figures(candidate, evaluation, champion, baselines or Baselines()), spec
        )
        self.log_records(run_id, records, card)
        model = self._log_model(experiment, run_id, candidate, spec)
        seal = seals.seal(self._signatures, spec.name, candidate.digest, decision)
        self._client.set_terminated(run_id)  # before the version: once that exists, nothing is left to do
        version = self._client.create_model_version(
            spec.name,
            source=model.artifact_location,  # models:/ID would be looked up where MLflow's global URI points
            run_id=run_id,
            model_id=model.model_id,
            tags=lineage.version_tags(candidate, decision) | {"evergreen.cause": cause.value, seals.SEAL_TAG: seal},
            description="passed the gate"
            if decision.passed
            else "refused: " + "; ".join(lineage.told_reasons(decision)),
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
        seals.require_servable(self._client, self._signatures, version)
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
        return self.read(version.run_id, "training_set", TrainingSet)

    def candidate(self, version: ModelVersion) -> TrainedModel:
        """How the version was made."""
        return self.read(version.run_id, "candidate", TrainedModel)

    def evaluation(self, version: ModelVersion) -> Evaluation:
        """Its figures at its gate."""
        return self.read(version.run_id, "evaluation", Evaluation)

    def baselines(self, version: ModelVersion) -> Baselines:
        """What plain models came to on its holdout."""
        return self.read(version.run_id, "baselines", Baselines)

    def judgement(self, version: ModelVersion) -> tuple[Evaluation, Evaluation | None, GateDecision]:
        """Its figures, the champion's on the same rows (None: there was none), and the gate's checks."""
        names = {file.path for file in self._client.list_artifacts(version.run_id)}
        champion = None
        if "champion_evaluation.json" in names:
            champion = self.read(version.run_id, "champion_evaluation", Evaluation)
        return self.evaluation(version), champion, self.read(version.run_id, "gate", GateDecision)

    def mirror(self, release: Release, *, tag_alone: bool = False) -> None:
        """Make MLflow's aliases and the tag `evergreen.release`, or that tag alone, say what the release says."""
        mlflow_aliases.mirror(self._client, release, tag_alone=tag_alone)

    def mirrored(self, model: str) -> tuple[dict[str, int], Release | None]:
        """What MLflow shows: version by alias, and the release that was mirrored last. Raises `UnknownModel`."""
        return mlflow_aliases.mirrored(self._client, model)

    def _find_version(self, model: str, artifact: Digest, decision: GateDecision) -> ModelVersion | None:
        mine = f"name = '{model}' and {lineage.about(artifact, decision)}"
        found = [one for one in self._client.search_model_versions(mine) if lineage.says(one.tags, decision)]
        return min((_version(one) for one in found), key=lambda version: version.version, default=None)

    def _claim_run(self, experiment: str, candidate: TrainedModel, tags: Mapping[str, str]) -> str | None:
        """The run the candidate was trained in, now with its verdict: all tags in one write, so that it has both or none."""
        run_id = None if candidate.job is None else self.unjudged_run(experiment, candidate.job)
        if run_id is not None:
            self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
        return run_id

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

    def _sealed(
        self, known: ModelVersion, decision: GateDecision, records: Mapping[str, BaseModel | None], card: str
    ) -> ModelVersion:
        """A known version again; where its seal does not hold, with the records and the seal of the present decision."""
        if seals.holds(self._client, self._signatures, known):
            return known
        with tempfile.TemporaryDirectory() as scratch:
            _require_digest(self._download_model(known, scratch), known.artifact)
        self.log_records(known.run_id, records, card)  # nobody vouches for what lies there
        seal = seals.seal(self._signatures, known.model, known.artifact, decision)
        self._client.set_model_version_tag(known.model, str(known.version), seals.SEAL_TAG, seal)
        return known.model_copy(update={"seal": seal})

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
        seal=tags.get(seals.SEAL_TAG),
    )


def _require_digest(folder: Path, expected: Digest) -> Path:
    found = artifact_digest(folder)
    if found != expected:
        raise ArtifactError(
            f"the artifact in {folder} has digest {found}, but {expected} was judged: its bytes changed since. "
            "It is not used; train it again, or restore the registry's files."
        )
    return folder
