"""Everything a run needs to go on as if it had not been killed, in folders that are whole or refused.

A checkpoint is a folder written by torch.distributed.checkpoint: tensors as safetensors, one file a rank that holds
some, and `manifest.json` with the numbers of the run and the SHA-256 of each file. The manifest is written last, its
own digest is part of the folder's name, and the folder gets that name in one rename: a torn or altered checkpoint is
refused by name and the one before is used. No file in it is a pickle, so none can run code; the digests protect from
accidents, not from somebody who may write here and makes a matching name. The disk is written to by a thread from a
copy, and training goes on meanwhile. Tensors are found by name and place, so another number of ranks can read them.
Called by `keeper.py` on all ranks.
"""

import contextlib
import hashlib
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor

from evergreen.errors import CheckpointError
from evergreen.training.artifact import sync_folder, write_durably
from evergreen.training.run.parallel import Place
from evergreen.types import Digest

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{9})\.([0-9a-f]{64})")


class Checkpoints:
    """The checkpoints of one job, the newest `keep` of them. To be made and called on all ranks alike."""

    def __init__(self, folder: Path, job: Digest, keep: int, place: Place, *, sharded: bool = False) -> None:
        self._folder, self._job, self._keep, self._place = folder, job, keep, place
        self._sharded = sharded
        # The thread's messages must not meet those of training, so they have a group of their own.
        self._group = dist.new_group(backend="gloo") if sharded else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        if place.leads:
            for leftover in folder.glob(".step-*"):
                shutil.rmtree(leftover)

    @property
    def busy(self) -> bool:
        """Is one being written?"""
        return self._writing is not None and not self._writing.done()

    def save(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Copy the state and have it written; waits only for one before it that is still being written.

        Raises `CheckpointError` when that one could not be.
        """
        self.wait()
        if self._place.leads or self._sharded:
            self._writing = self._thread.submit(self._write, step, _copies(tensors), numbers)

    def wait(self) -> None:
        """Until the last one is on the disk."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, CheckpointException) as error:
            raise CheckpointError(
                f"a checkpoint could not be written to {self._folder}: {_cause(error)}. Make room there and run again."
            ) from error

    def _write(self, step: int, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        scratch = self._folder / f".step-{step:09d}"
        writer = HuggingFaceStorageWriter(str(scratch), save_distributed=True)
        with _quiet():
            save(tensors, storage_writer=writer, process_group=self._group, no_dist=not self._sharded)
        if not self._place.leads:
            return
        files = {path.name: _digest(path) for path in sorted(scratch.iterdir())}
        manifest = {"job": self._job, "step": step, "ranks": self._place.ranks, "files": files, "numbers": numbers}
        content = json.dumps(manifest).encode()
        write_durably(scratch / MANIFEST, content)
        path = self._folder / f"step-{step:09d}.{hashlib.sha256(content).hexdigest()}"
        if path.exists():  # saved before, by a run that was then killed
            shutil.rmtree(path)
        scratch.rename(path)
        sync_folder(self._folder)
        for old in self.newest_first()[self._keep :]:
            shutil.rmtree(old, ignore_errors=True)

    def newest_first(self) -> list[Path]:
        """Finished folders, valid or not; leftovers of a killed write are not among them."""
        if not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)

    def load_newest(
        self, tensors: Callable[[], dict[str, Tensor]], on_refused: Callable[[CheckpointError], None]
    ) -> dict[str, Any] | None:
        """Fill `tensors()` in place from the newest valid checkpoint; returns its manifest, or None where there is none.

        Each refused one on the way is told. A rank that holds a part of a tensor reads that part.
        """
        for path in self.newest_first():
            try:
                manifest = self.verified(path)
            except CheckpointError as error:
                on_refused(error)
                continue
            with _quiet():
                load(tensors(), storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
            return manifest
        return None

    def verified(self, path: Path) -> dict[str, Any]:
        """One checkpoint's manifest. Raises `CheckpointError` when it is torn, altered or another job's."""
        match = _NAME.fullmatch(path.name)
        try:
            content = (path / MANIFEST).read_bytes()
            if match is None or hashlib.sha256(content).hexdigest() != match[2]:
                raise _torn(path, MANIFEST)
            manifest = json.loads(content)
            found = {file.name for file in path.iterdir()} - {MANIFEST}
            for name, digest in manifest["files"].items():
                if name not in found or _digest(path / name) != digest:
                    raise _torn(path, name)
        except OSError as error:
            raise CheckpointError(f"checkpoint {path.name} cannot be read: {error}. It is not used.") from error
        if strangers := found - set(manifest["files"]):
            raise CheckpointError(f"checkpoint {path.name} has files nobody wrote: {strangers}. It is not used.")
        if manifest["job"] != self._job:
            raise CheckpointError(
                f"checkpoint {path.name} belongs to job {manifest['job']}, not {self._job}. It is not used."
            )
        return manifest  # type: ignore[no-any-return]


def _cause(error: OSError | CheckpointException) -> BaseException:
    """What torch wraps: the disk's own refusal on any rank, else the first rank's failure."""
    if isinstance(error, OSError):
        return error
    failures = [failure for failure, _ in error.failures.values()]
    return next((failure for failure in failures if isinstance(failure, OSError)), failures[0])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """One rank alone is what is meant, whatever torch thinks of it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the thread may read while training changes the originals."""
    return {
        name: value.detach().clone() if isinstance(value, DTensor) else value.detach().to("cpu", copy=True)
        for name, value in tensors.items()
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _torn(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path.name} is torn or altered: {name} does not have the digest it was written with. It is not used."
    )
