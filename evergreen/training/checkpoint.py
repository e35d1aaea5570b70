"""Everything a run needs to go on as if it had not been killed, in files that are whole or refused.

A checkpoint's name carries its step and the SHA-256 of its bytes; a torn or altered one is refused by name and the
one before is used. Files are read with `weights_only`: no code in them can run. Called by `worker.py`; rank 0 writes,
all read.
"""

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from evergreen.errors import CheckpointError
from evergreen.training.artifact import write_durably
from evergreen.types import Digest

_NAME = re.compile(r"step-(\d{9})\.([0-9a-f]{64})\.pt")


class Checkpoints:
    """The checkpoints of one job, the newest `keep` of them."""

    def __init__(self, folder: Path, job: Digest, keep: int) -> None:
        self._folder = folder
        self._job = job
        self._keep = keep

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write one durably, then drop the oldest beyond `keep`."""
        buffer = io.BytesIO()
        torch.save({"job": self._job, "step": step, "state": state}, buffer)
        content = buffer.getvalue()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{step:09d}.{hashlib.sha256(content).hexdigest()}.pt"
        write_durably(path, content)
        for old in self.newest_first()[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def newest_first(self) -> list[Path]:
        """Finished files, valid or not; leftovers of a killed write are not among them."""
        if not self._folder.is_dir():
            return []
        return sorted((p for p in self._folder.iterdir() if _NAME.fullmatch(p.name)), reverse=True)

    def load_newest(self, on_refused: Callable[[CheckpointError], None]) -> dict[str, Any] | None:
        """State of the newest valid checkpoint, or None; each refused one on the way is told."""
        for path in self.newest_first():
            try:
                return self.load(path)
            except CheckpointError as error:
                on_refused(error)
        return None

    def load(self, path: Path) -> dict[str, Any]:
        """One checkpoint's state. Raises `CheckpointError` when it is torn, altered or another job's."""
        match = _NAME.fullmatch(path.name)
        content = path.read_bytes()
        if match is None or hashlib.sha256(content).hexdigest() != match[2]:
            raise CheckpointError(
                f"checkpoint {path.name} is torn or altered: its bytes do not have the digest in its name. It is not used."
            )
        try:
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(
                f"checkpoint {path.name} holds more than tensors and numbers. It is not used."
            ) from error
        if saved["job"] != self._job:
            raise CheckpointError(
                f"checkpoint {path.name} belongs to job {saved['job']}, not {self._job}. It is not used."
            )
        return saved["state"]  # type: ignore[no-any-return]
