"""Seals: who vouches that these bytes were judged, and how.

A version's seal is an in-toto statement (in-toto.io/Statement/v1) over its artifact's digest and its verdict's, signed with
Ed25519 in a DSSE envelope (github.com/secure-systems-lab/dsse, protocol 1.0): the form OpenSSF's `model-signing` writes as
well. That package itself would bring some thirty others into each serving process and 0.35 CPU seconds of imports, to hash
files whose digest is known here; `cryptography` is installed with MLflow, and costs 0.01.

The private key is made on first use and stays with who trains (`EVERGREEN_SIGNING_KEY`). Who serves needs the folder of
public keys alone (`EVERGREEN_TRUSTED_KEYS`). To rotate, take the private key away: another is made, and the versions that
the old one sealed stay believed. To revoke a key, delete its public half too: a version that it alone sealed serves no more
until `retrain` with its `as_of` has judged and sealed it again.
Called by `mlflow/`.
"""

import base64
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from evergreen.errors import ArtifactError, ConfigurationError
from evergreen.types import Digest

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:evergreen:verdict:v1"


class Signatures:
    """Seals versions with one private key, and believes the seals of the trusted public ones."""

    def __init__(self, signing_key: Path, trusted_keys: Path) -> None:
        self._signing_key = signing_key
        self._trusted_keys = trusted_keys

    def seal(self, model: str, artifact: Digest, verdict: Digest, *, passed: bool) -> str:
        """The envelope, as text, that vouches for an artifact and its verdict; the same again is the same text.

        Makes the key pair where there is none. Raises `ConfigurationError` where the key is not one, or others may read it.
        """
        key = self._private_key()
        payload = statement(model, artifact, verdict, passed=passed)
        signature = {"keyid": key_id(key.public_key()), "sig": _text(key.sign(_encoded(payload)))}
        envelope = {"payload": _text(payload), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
        return orjson.dumps(envelope, option=orjson.OPT_SORT_KEYS).decode()

    def require(self, seal: str, model: str, artifact: Digest, verdict: Digest, *, passed: bool) -> None:
        """Return when a trusted key sealed exactly this; raises `ArtifactError`, saying what is wrong, when none did."""
        try:
            envelope = orjson.loads(seal)
            payload = base64.b64decode(envelope["payload"], validate=True)
            signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError("its seal is no readable envelope. Register it again through the gate.") from error
        trusted = list(self._public_keys())
        if not any(_signed(key, one, payload) for key in trusted for one in signatures):
            raise ArtifactError(
                f"its seal bears no signature of the {len(trusted)} trusted keys in {self._trusted_keys}. Register it again "
                "through the gate, or, where its key is to be believed, add the public key there (EVERGREEN_TRUSTED_KEYS)."
            )
        if payload != statement(model, artifact, verdict, passed=passed):
            raise ArtifactError(
                "its seal is of another artifact or verdict: what is registered was altered after it was judged. "
                "Restore it, or train again."
            )

    def _private_key(self) -> Ed25519PrivateKey:
        if not self._signing_key.exists():
            self._make_key()
        key = self._read(self._signing_key)
        if not self._trusted_keys.exists():
            self._trust(key)  # a key of one's own, seen for the first time
        if not self._trusts(key):
            raise ConfigurationError(
                f"the key {self._signing_key} is not among the trusted ones in {self._trusted_keys}, so nobody would serve what "
                f"it seals. Add its public half there ({key_id(key.public_key())}.pem), or take the key away to have one made."
            )
        return key

    def _make_key(self) -> None:
        """One key, however many ask at once; who is killed on the way and asks again goes on with the same."""
        folder = self._signing_key.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # the kernel releases it when its holder dies
            if self._signing_key.exists():
                return
            aside = self._signing_key.with_name(f".{self._signing_key.name}.next")
            key = Ed25519PrivateKey.generate()
            _place(aside, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
            # Trusted before it is in force: later nobody could tell a key not yet trusted from one trusted no more.
            self._trust(self._read(aside))
            aside.rename(self._signing_key)
        finally:
            os.close(handle)

    def _read(self, path: Path) -> Ed25519PrivateKey:
        if path.stat().st_mode & 0o007:
            raise ConfigurationError(
                f"everybody may read the signing key {path}: chmod 600 it, and make another if it was seen"
            )
        try:
            key = load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"EVERGREEN_SIGNING_KEY {path} is no unencrypted PEM key: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(
                f"EVERGREEN_SIGNING_KEY {path} is no Ed25519 key: openssl genpkey -algorithm ed25519 makes one"
            )
        return key

    def _trust(self, key: Ed25519PrivateKey) -> None:
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _place(self._trusted_keys / f"{key_id(key.public_key())}.pem", public, mode=0o644)

    def _trusts(self, key: Ed25519PrivateKey) -> bool:
        return key_id(key.public_key()) in {key_id(trusted) for trusted in self._public_keys()}

    def _public_keys(self) -> Iterator[Ed25519PublicKey]:
        for path in sorted(self._trusted_keys.glob("*.pem")):
            try:
                key = load_pem_public_key(path.read_bytes())
            except (ValueError, UnsupportedAlgorithm) as error:
                raise ConfigurationError(f"{path} is no public key: {error}. Take it out of the folder.") from error
            if isinstance(key, Ed25519PublicKey):
                yield key


def statement(model: str, artifact: Digest, verdict: Digest, *, passed: bool) -> bytes:
    """What is signed: this artifact of this model was judged, and this was the verdict."""
    return orjson.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": model, "digest": {"sha256": artifact.removeprefix("sha256:")}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {"verdict": verdict, "passed": passed},
        },
        option=orjson.OPT_SORT_KEYS,
    )


def key_id(key: Ed25519PublicKey) -> str:
    """A short name of a public key: the beginning of its digest."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def _signed(key: Ed25519PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        key.verify(signature, _encoded(payload))
    except InvalidSignature:
        return False
    return True


def _encoded(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what it is stands beside it, so neither passes for another."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _place(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file whole or not at all, unless it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=".making-")  # 0600 from the start
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        Path(scratch).unlink()
