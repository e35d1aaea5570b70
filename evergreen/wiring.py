"""The only place that chooses collaborators: `Settings` in, clients out.

Called by tasks and by serving. Everything is opened on first use, once a process, so a process pays only for the vendors
it touches. To support another backend, choose it here.
"""

import hashlib
import os
import reprlib
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evergreen.adapters.admissions import Admissions
from evergreen.adapters.database import migrate, open_engine
from evergreen.adapters.domains import domain_module
from evergreen.adapters.drift_checks import DriftChecks
from evergreen.adapters.estimates import WindowEstimates
from evergreen.adapters.prediction_log import PredictionLog
from evergreen.adapters.releases import ReleaseStore
from evergreen.adapters.watch_history import WatchHistory
from evergreen.errors import SpecError
from evergreen.settings import ROOT, Settings
from evergreen.spec import ModelSpec, load_spec
from evergreen.types import BuildReport, IngestReport

if TYPE_CHECKING:  # Feast and MLflow cost seconds to import; a process pays when it asks
    from evergreen.adapters.feast import Features
    from evergreen.adapters.mlflow.registry import ModelRegistry


Report = TypeVar("Report", IngestReport, BuildReport)


class Pipeline(Protocol):
    """What a folder under `feature_repo/` offers: raw data in, feature tables out.

    Every flow that reads features calls both, at times two processes at once, and with moments that were done before.
    """

    def ingest(self, data: Path, as_of: datetime) -> IngestReport:
        """Bring in and check the raw rows that became known up to `as_of`."""

    def build(self, data: Path, as_of: datetime) -> BuildReport:
        """Bring the feature tables up to `as_of`."""


@dataclass(frozen=True)
class Records:
    """Evergreen's own tables, inside one transaction."""

    predictions: PredictionLog
    releases: ReleaseStore
    admissions: Admissions
    checks: DriftChecks
    estimates: WindowEstimates
    watched: WatchHistory


class Wiring:
    """Every client a process needs, opened when first asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def spec(self, model: str) -> ModelSpec:
        """Read `models/NAME.toml`; raises `UnknownModel` or `SpecError`."""
        return load_spec(self.settings.models_dir / f"{model}.toml")

    def pipeline(self, spec: ModelSpec) -> Pipeline:
        """Import the `pipeline` of the spec's domain folder; raises `SpecError` where it is none."""
        path = self.settings.feature_repo / spec.data.domain / "pipeline.py"
        if not path.is_file():
            raise SpecError(
                f"{spec.name}.toml: [data].domain is {spec.data.domain!r}, but there is no {path}; "
                "make that file or name an existing folder"
            )
        module = domain_module(path)
        if missing := [f"{step}(data, as_of)" for step in ("ingest", "build") if not hasattr(module, step)]:
            raise SpecError(f"{path} offers no {' and no '.join(missing)}; every flow calls both")
        return cast(Pipeline, module)

    @cached_property
    def engine(self) -> Engine:
        """Evergreen's database, migrated."""
        migrate(self.settings.tables_url)
        return open_engine(self.settings.tables_url)

    @contextmanager
    def records(self) -> Iterator[Records]:
        """One transaction over Evergreen's tables: committed at the end, rolled back on an error."""
        with Session(self.engine) as session, session.begin():
            yield Records(
                predictions=PredictionLog(session),
                releases=ReleaseStore(session),
                admissions=Admissions(session),
                checks=DriftChecks(session),
                estimates=WindowEstimates(session),
                watched=WatchHistory(session),
            )

    @cached_property
    def features(self) -> "Features":
        """Feast, with every domain's definitions applied."""
        from evergreen.adapters.feast import Features

        features = Features(self.settings)
        features.apply()
        return features

    @cached_property
    def registry(self) -> "ModelRegistry":
        """MLflow's tracking and registry."""
        from evergreen.adapters.mlflow.registry import ModelRegistry

        return ModelRegistry(self.settings)


def reported(kind: type[Report], told: object, where: str) -> Report:
    """What a step of a domain's pipeline returned; raises `SpecError` naming what is asked for where it is not of that kind."""
    if not isinstance(told, kind):
        fields = ", ".join(f"{name}=…" for name, field in kind.model_fields.items() if field.is_required())
        raise SpecError(
            f"{where} returned {reprlib.repr(told)}, but the flows read an evergreen.types.{kind.__name__}; "
            f"return {kind.__name__}({fields}), see evergreen/types/pipeline.py"
        )
    return told


@cache
def wiring() -> Wiring:
    """This process's clients, from its environment."""
    return Wiring(Settings())


@cache
def code_revision() -> str:
    """The commit this code is of; where its files differ from it, or there is no git, a digest of them follows.

    `EVERGREEN_CODE_REVISION` says it for an image without git.
    """
    if told := os.environ.get("EVERGREEN_CODE_REVISION"):
        return told
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        described = "no-git+"
    return described + _digest_of_code() if described.endswith("+") else described


def _digest_of_code() -> str:
    digest = hashlib.sha256()
    for path in sorted((ROOT / "evergreen").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
