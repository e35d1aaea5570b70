"""Everything that answers, put together: HTTP stands on it, and so does a replay in process.

Loads released versions, looks features up, scores, logs, and owns the two threads (release poller, log writer). Its
clients come from `evergreen/wiring.py`. Knows no HTTP: `app.py` adds that.

    with Runtime.open(wiring(), follow=False) as runtime:
        loaded = runtime.models.named("flight_delay")
        predictions = runtime.scorer.answer_joined(loaded, frame)
        runtime.log.flush()
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

import numpy as np
import pandas as pd
from anyio import CapacityLimiter

from evergreen.adapters.prediction_log import OutcomeCounts
from evergreen.errors import ArtifactError
from evergreen.settings import Settings
from evergreen.spec import ModelSpec
from evergreen.types import Release, Task
from evergreen.wiring import Wiring
from serving.batches import THREADS, Batches
from serving.carrier import BATCH_ROWS, Carrier, stored
from serving.features import FeatureLookup, needs
from serving.loaded import LoadedModel, LoadedModels, Scoring
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.scoring import Scorer
from serving.spool import Spool

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""How long a closing process goes on writing predictions."""
WARM_UP_ROWS = (1, 64)
"""Batches scored before a version serves: a few rows and many go different ways (`evergreen/training/network/few.py`)."""


class Runtime:
    """The collaborators of one serving process, and their beginning and end."""

    def __init__(self, wiring: Wiring, metrics: Metrics | None = None, *, apart: bool = False) -> None:
        self.metrics = metrics or Metrics()
        self._wiring = wiring
        self.threads = CapacityLimiter(THREADS)
        """Of predictions alone, so that they wait for nobody who waits for the database."""
        self._batches: dict[str, Batches] = {}
        self._opening = Lock()
        self.models = LoadedModels(
            self.releases, self._load, self._fetch, self.metrics, poll_seconds=wiring.settings.serving_poll_seconds
        )
        spool = Spool.claim(wiring.settings.spool, capacity_bytes=wiring.settings.spool_bytes)
        self._carrier = Carrier(wiring.settings, lambda: self.log.pace) if apart else None
        if self._carrier is None:
            self.log = LogWriter(partial(stored, wiring), spool, self.metrics)
        else:
            self.log = LogWriter(self._carrier.write, spool, self.metrics, batch_rows=BATCH_ROWS)
        lookup = FeatureLookup(wiring.features, self.metrics)
        self.scorer = Scorer(lookup, self.log, self.metrics, wiring.settings.clock)

    @classmethod
    def open(cls, wiring: Wiring, metrics: Metrics | None = None, *, follow: bool = True, apart: bool = False) -> Self:
        """Load what is released now, then start the threads.

        Without `follow` nothing looks for changed releases: call `models.refresh()` where they may have changed. `apart`
        has the log written by a process of its own, for a server whose answers should not wait for that.
        """
        runtime = cls(wiring, metrics, apart=apart)
        if runtime._carrier is not None:
            runtime._carrier.start()
        try:
            runtime.models.refresh()
        except BaseException:
            runtime.close()
            raise
        runtime.log.start()
        if follow:
            runtime.models.start()
        return runtime

    def batches(self, model: str) -> Batches:
        """Where the questions about a model come together."""
        with self._opening:
            if model not in self._batches:
                self._batches[model] = Batches(model, self.scorer.answer, self.metrics, self.threads)
            return self._batches[model]

    def close(self) -> int:
        """Stop looking for releases, drain the log for a bounded time, and return how many answers stay in the spool."""
        self.models.close()
        for batches in self._batches.values():
            batches.close()
        left = self.log.close(DRAIN_SECONDS)
        if self._carrier is not None:
            self._carrier.close()
        return left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def settings(self) -> Settings:
        """What the process was configured with."""
        return self._wiring.settings

    def releases(self) -> list[Release]:
        """The releases table, read now."""
        with self._wiring.records() as records:
            current = [records.releases.current(model) for model in records.releases.models()]
        return [release for release in current if release is not None]

    def task(self, model: str) -> Task:
        """What a model predicts. Raises `UnknownModel` where there is no spec."""
        return self._wiring.spec(model).model.task

    def record_outcomes(self, model: str, outcomes: pd.DataFrame) -> OutcomeCounts:
        """Keep outcomes: `example_id`, `label`, `label_timestamp`. Raises `UnknownModel` where there is no spec."""
        task = self.task(model)
        with self._wiring.records() as records:
            counts = records.predictions.record_outcomes(model, outcomes, task)
        for kind in ("new", "repeated", "unknown", "conflicting"):
            self.metrics.outcomes.labels(model, kind).inc(getattr(counts, kind))
        return counts

    def _load(self, release: Release, current: LoadedModel | None) -> LoadedModel:
        """Bring a release's versions into memory, warm; keep those that are already there.

        Where all of them are, as for a roll-back, a model's file or a feature service that cannot be read is no hindrance.
        """
        kept = dict(current.versions) if current is not None else {}
        wanted = [number for number in (release.champion, release.challenger) if number is not None]
        try:
            spec = self._wiring.spec(release.model)
            inputs = self._wiring.features.inputs(spec.data.feature_service, spec.data.entity_features)
            needed = needs(self._wiring.features, spec.data.feature_service)
        except Exception as error:  # whatever is wrong with a file, or the feature registry's driver throws
            if current is None or not kept.keys() >= set(wanted):
                raise
            told = "revision %d serves under what was read of the model's file before; it cannot be read now"
            logger.error(f"%s: {told}: %s: %s", release.model, release.revision, type(error).__name__, error)
            return replace(current, release=release, versions=_held(kept, [*wanted, release.previous]))
        self.metrics.introduce(release.model)
        versions: dict[int, Scoring] = {}
        for number in wanted:
            versions[number] = kept.get(number) or self._fetch(release.model, number)
            _require_inputs(spec, number, versions[number], inputs)
        # A previous champion that is not there is fetched by `LoadedModels`, once this serves.
        return LoadedModel(spec, release, versions | _held(kept, [release.previous]), needed)

    def _fetch(self, model: str, number: int) -> Scoring:
        """Load one version that passed its gate and is sealed, its bytes those that were judged, and score with it once."""
        from evergreen.training.predictor import Predictor  # imports torch: two seconds, paid when there is a version

        version = self._wiring.registry.servable(model, number)
        # The files are only needed until the weights are in memory, and replicas must not share a folder.
        with tempfile.TemporaryDirectory(prefix="evergreen-serving-") as folder:
            predictor = Predictor.load(self._wiring.registry.fetch(version, Path(folder)), version.artifact)
        _warm_up(predictor)
        return predictor


def _held(kept: Mapping[int, Scoring], numbers: Sequence[int | None]) -> dict[int, Scoring]:
    return {number: kept[number] for number in numbers if number is not None and number in kept}


def _require_inputs(spec: ModelSpec, number: int, version: Scoring, given: Mapping[str, str]) -> None:
    missing = [name for name in version.inputs if name not in given]
    if missing:
        raise ArtifactError(
            f"{spec.name} version {number} was trained on {missing}, which feature service "
            f"{spec.data.feature_service!r} does not give. Put them back into the service or train again."
        )


def _warm_up(version: Scoring) -> None:
    """Score rows in which everything is missing: no request pays for the first time, and a broken version shows."""
    for rows in WARM_UP_ROWS:
        scores = version.score(
            {
                name: np.full(rows, np.nan) if kind == "numeric" else np.full(rows, None, dtype=object)
                for name, kind in version.inputs.items()
            }
        )
        shape = (rows, len(version.classes)) if version.classes else (rows,)
        if scores.shape != shape or not np.isfinite(scores).all():
            raise ArtifactError(
                f"scoring {rows} rows of missing values gave {scores!r}, not finite numbers of shape {shape}"
            )
