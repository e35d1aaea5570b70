"""A model artifact: a folder with `model.json`, `weights.safetensors` and now and then a `program`, and a digest of all.

Free of torch: whoever moves or checks artifacts (a registry, a server) reads digests from here. Loading one to score
with it is `predictor.py`. A folder appears whole or not at all.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from evergreen.errors import ArtifactError
from evergreen.types import Digest

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
FILES = (MODEL_FILE, WEIGHTS_FILE)
PROGRAM_FILE = "program"
"""Of a variant that has one; see `network/programs.py`."""


def artifact_digest(folder: Path) -> Digest:
    """SHA-256 over each file of an artifact in order of names: its name, a zero byte, its length (8 bytes, big-endian), its bytes.

    Raises `ArtifactError` naming the file that is missing.
    """
    return files_digest(_files(folder))


def files_digest(files: Mapping[str, bytes]) -> Digest:
    """The digest an artifact of these files has; see `artifact_digest`."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + len(files[name]).to_bytes(8, "big") + files[name])
    return f"sha256:{digest.hexdigest()}"


def read_artifact(folder: Path, expected: Digest | None = None) -> dict[str, bytes]:
    """All files of an artifact by name, each read once: what was verified is what is returned.

    Raises `ArtifactError` when a file is missing or the bytes are not the `expected` ones.
    """
    files = _files(folder)
    found = files_digest(files)
    if expected is not None and found != expected:
        raise ArtifactError(
            f"the artifact in {folder} has digest {found}, expected {expected}: its bytes changed since it was made. "
            "Fetch it again from the registry, or train it again."
        )
    return files


def write_artifact(folder: Path, files: Mapping[str, bytes]) -> Digest:
    """Put an artifact at `folder`, replacing what is there; returns its digest."""
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    for name, content in files.items():
        write_durably(scratch / name, content)
    if folder.exists():
        shutil.rmtree(folder)
    scratch.rename(folder)
    sync_folder(folder.parent)
    return files_digest(files)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever is killed: temporary name, fsync, rename."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with scratch.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make sure that names put into or taken out of a folder stay so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> dict[str, bytes]:
    names = (*FILES, PROGRAM_FILE) if (folder / PROGRAM_FILE).exists() else FILES
    return {name: _read(folder, name) for name in names}


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"the artifact in {folder} has no readable {name} ({error.strerror}); it needs {' and '.join(FILES)}. "
            "Fetch it again from the registry, or train it again."
        ) from error
