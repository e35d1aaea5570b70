"""What is to be trained, on what, and where its folder is.

Free of torch, so that tasks and tests can name a job without paying for the import. A job's digest covers everything
that shapes its weights and nothing else: two requests for the same model share one folder, and the second finds the
first's work. How the work is spread (ranks, shards, pieces, kernels) changes nothing but the rounding, so it is left
out: a run may go on with another number of ranks. Called by `launch.py` and by every rank (`worker.py`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from evergreen.adapters import boosted_trees
from evergreen.spec import ModelSpec, TrainConfig
from evergreen.types import Digest, Fact, TrainingSet, Utc

SPREAD = frozenset({"ranks", "parallelism", "accumulate", "compile", "fused", "checkpoint_seconds", "keep_checkpoints"})
"""Keys of `[train]` that say how the work is done, not what comes of it."""


class Placement(Fact):
    """Where the ranks of a job run."""

    trainer: Literal["local", "ray"] = "local"
    """Processes of this machine, or actors of a Ray cluster whose nodes all see the job's folder."""
    ray_address: str = "auto"


HERE = Placement()


class Base(Fact):
    """A finished model that a job goes on from: its weights, its preprocessing and its label."""

    uri: str
    digest: Digest
    since: Utc
    """Only rows from then on train."""


class TrainingJob(Fact):
    """One model to train."""

    training_set: TrainingSet
    spec: ModelSpec
    code_revision: str
    folder: str
    """Root of all jobs; this one works in `path` below it."""
    base: Base | None = None
    """What is tuned further; None trains from weights drawn anew."""
    account: str | None = None
    """A folder where what this run of the job uses is noted as well, for who asked for it."""

    @property
    def digest(self) -> Digest:
        """Of the rows, the `[model]` and `[train]` tables (with the seed, see `shaping`), the classes and the code's revision."""
        return "sha256:" + hashlib.sha256(json.dumps(self._recipe, sort_keys=True).encode()).hexdigest()

    @property
    def path(self) -> Path:
        """This job's own folder: its checkpoints and, once finished, its model."""
        return Path(self.folder) / self.digest.removeprefix("sha256:")[:16]

    @property
    def model_path(self) -> Path:
        """Where the finished artifact lies."""
        return self.path / "model"

    @property
    def checkpoints_path(self) -> Path:
        """Where its checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def rows_path(self) -> Path:
        """Where its encoded rows lie while it trains."""
        return self.path / "rows"

    @property
    def spent_path(self) -> Path:
        """Where its ranks note what they use."""
        return self.path / "spent"

    @property
    def note_paths(self) -> tuple[Path, ...]:
        """Every folder they are to note it in; an account may be of several jobs."""
        return (self.spent_path,) if self.account is None else (self.spent_path, Path(self.account) / self.path.name)

    @property
    def stop_path(self) -> Path:
        """A note by which the launcher tells ranks on other machines to save and stop."""
        return self.path / "stop"

    @property
    def result_path(self) -> Path:
        """The `TrainedModel` as JSON; there once the job is finished."""
        return self.path / "result.json"

    @property
    def lineage(self) -> dict[str, Any]:
        """What a finished artifact says of its making."""
        return {
            "training_set": self.training_set.digest,
            "code_revision": self.code_revision,
            "train": shaping(self.spec.train),
            **({"lightgbm": boosted_trees.release()} if self.spec.train.teacher_share else {}),
            **({} if self.base is None else {"base": self.base.digest, "since": self.base.since.isoformat()}),
        }

    @property
    def _recipe(self) -> dict[str, Any]:
        return {
            "model": self.spec.model.model_dump(mode="json"),
            "classes": self.spec.data.classes,
            "rows": {
                "digest": self.training_set.digest,
                "features": list(self.training_set.features.items()),
                "train_before": self.training_set.holdout.start.isoformat(),
            },
            **self.lineage,
        }


def shaping(config: TrainConfig) -> dict[str, Any]:
    """What of a `[train]` table shapes the weights, as JSON: not how the work is spread, nor when to give up."""
    return config.model_dump(mode="json", exclude={*SPREAD, "abandon_margin"})
