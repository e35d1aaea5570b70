"""A version's seal: a trusted key's word on its artifact and on `gate.json`, the gate's record in its run.

It covers those two alone: the run's other files, `verdict/` among them, are drawn from the same judgement and unsealed.
Called by `registry.py`; how a seal is made and believed is said in `../signatures.py`.
"""

import hashlib
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from evergreen.adapters.mlflow.runs import document
from evergreen.adapters.signatures import Signatures
from evergreen.errors import ArtifactError
from evergreen.types import Digest, GateDecision, ModelVersion

SEAL_TAG = "evergreen.seal"


def seal(signatures: Signatures, model: str, artifact: Digest, decision: GateDecision) -> str:
    """Vouch for an artifact and for a decision about it, as it is decided: never for what happens to lie in a run."""
    return signatures.seal(model, artifact, _digest_of(document(decision)), passed=decision.passed)


def require_servable(client: MlflowClient, signatures: Signatures, version: ModelVersion) -> None:
    """Return for a version that passed, by a seal that holds; raises `ArtifactError` for any other."""
    try:
        require(client, signatures, version)
        if not version.passed:
            raise ArtifactError(
                f"it did not pass its gate ({'; '.join(version.reasons)}). Roll back to a version that did."
            )
    except ArtifactError as error:
        raise ArtifactError(f"{version.model} version {version.version} is never served: {error}") from error


def require(client: MlflowClient, signatures: Signatures, version: ModelVersion) -> None:
    """Return where a trusted key sealed the version and the verdict in its run as they are now; else `ArtifactError`."""
    if version.seal is None:
        raise ArtifactError("nobody sealed it. Register it again through the gate: `retrain` with the same as_of.")
    verdict = _verdict_digest(client, version)
    signatures.require(version.seal, version.model, version.artifact, verdict, passed=version.passed)


def holds(client: MlflowClient, signatures: Signatures, version: ModelVersion) -> bool:
    """Whether `require` finds nothing wrong."""
    try:
        require(client, signatures, version)
    except ArtifactError:
        return False
    return True


def _verdict_digest(client: MlflowClient, version: ModelVersion) -> Digest:
    """Of the bytes of its gate's record as they are now."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return _digest_of(Path(client.download_artifacts(version.run_id, "gate.json", scratch)).read_bytes())
        except (MlflowException, OSError) as error:
            raise ArtifactError(f"its verdict cannot be read: {error}") from error


def _digest_of(content: bytes) -> Digest:
    return "sha256:" + hashlib.sha256(content).hexdigest()
