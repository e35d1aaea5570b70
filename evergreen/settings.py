"""The environment → `Settings`. Everything is embedded by default and lives under one folder.

Variables start with `EVERGREEN_`; a `.env` file in the working directory is read too. Production is the same code with
other values: a Postgres URL, an MLflow server, Redis. Two more are read from the environment alone, where they are used:
`EVERGREEN_CODE_REVISION` (`wiring.py`), the commit of an image without git, and `EVERGREEN_EVIDENTLY_PORT` (Makefile), the
port of `make evidently`, 8010.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from evergreen.types import Rates, Utc

ROOT = Path(__file__).resolve().parent.parent
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """Where everything lives. Each attribute is a variable `EVERGREEN_<NAME>`."""

    model_config = SettingsConfigDict(
        env_prefix="EVERGREEN_", env_file=".env", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    home: Annotated[Path, AfterValidator(Path.absolute)] = ROOT / ".evergreen"
    """State of an embedded installation: databases, tables, artifacts, logs."""
    models_dir: Path = ROOT / "models"
    """Where the specs are."""
    feature_repo: Path = ROOT / "feature_repo"
    """Where Feast's definitions and `feature_store.yaml` are."""
    database_url: str = ""
    """Evergreen's own tables (SQLAlchemy URL); default SQLite under `home`."""
    mlflow_tracking_uri: str = ""
    """MLflow's tracking and registry; default SQLite under `home`, read in process. With a server's address `make up` starts no
    MLflow of its own."""
    mlflow_ui_url: str = "http://127.0.0.1:5000"
    """Where people open MLflow; used for links only."""
    registry_url: str = ""
    """Feast's SQL registry (SQLAlchemy URL); default SQLite under `home`."""
    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis_url: str = "localhost:6379"
    """Feast's Redis connection string, when `online_store` is redis."""
    now: Utc | None = None
    """Pins the logical clock: flows without `as_of` and requests without one are asked at this moment. For replays."""
    signing_key: Path | None = None
    """Private key (Ed25519, PEM) that seals judged versions; default under `home`, made on first use. Serving needs none."""
    trusted_keys: Path | None = None
    """Folder of the public keys (`*.pem`) whose seals are believed; default under `home`."""
    trainer: Literal["local", "ray"] = "local"
    """Where ranks run: processes of this machine, or actors of a Ray cluster."""
    ray_address: str = "auto"
    """Of the Ray cluster, when `trainer` is ray."""
    cpu_hour_price: float | None = Field(default=None, ge=0)
    """Price of one CPU core for an hour; with it every training run states what it cost."""
    gpu_hour_price: float | None = Field(default=None, ge=0)
    """Price of one GPU for an hour."""
    currency: str = "USD"
    lease_seconds: float = Field(default=30.0, gt=0)
    """A retrain whose process has died may be taken over after this long."""
    host: str = "127.0.0.1"
    serving_port: Port = 8000
    mlflow_port: Port = 5000
    prefect_port: Port = 4200
    serving_workers: int = Field(default=1, ge=1, le=256)
    """Processes that answer on `serving_port`; each holds every model."""
    serving_poll_seconds: float = Field(default=1.0, gt=0)
    """How often serving looks for a changed release."""

    spool_bytes: int = Field(default=512 << 20, ge=1 << 20)
    """What serving may keep on disk for the prediction log while the database is away; then the oldest are lost, counted."""

    require_api_keys: bool = False
    """Answer only who sends a key of `keys_file` (`python -m serving.keys`); needed to listen beyond this machine."""
    max_body_bytes: int = Field(default=16 << 20, ge=1024)
    """Of one request to serving."""

    @property
    def keys_file(self) -> Path:
        """Hashes and scopes of serving's API keys."""
        return self.home / "api_keys.json"

    @property
    def spool(self) -> Path:
        """Answers on their way to the prediction log; on a disk that outlives the process."""
        return self.home / "spool"

    @property
    def data(self) -> Path:
        """Raw tables, feature tables and training sets."""
        return self.home / "data"

    @property
    def artifacts(self) -> Path:
        """Training jobs' working folders: checkpoints and finished models."""
        return self.home / "training"

    @property
    def models_cache(self) -> Path:
        """Artifacts of registered versions, fetched once."""
        return self.home / "models"

    @property
    def tables_url(self) -> str:
        """`database_url` or its embedded default."""
        return self.database_url or f"sqlite:///{self.home / 'evergreen.db'}"

    @property
    def tracking_uri(self) -> str:
        """`mlflow_tracking_uri` or its embedded default."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def mlflow_elsewhere(self) -> bool:
        """MLflow is a server that runs already, and no database of ours."""
        return self.tracking_uri.startswith(("http://", "https://"))

    @property
    def feast_registry(self) -> str:
        """`registry_url` or its embedded default."""
        return self.registry_url or f"sqlite:///{self.home / 'feast_registry.db'}"

    @property
    def rates(self) -> Rates:
        """What a run's cost is priced by."""
        return Rates(cpu_hour=self.cpu_hour_price, gpu_hour=self.gpu_hour_price, currency=self.currency)

    @property
    def private_key(self) -> Path:
        """`signing_key` or its embedded default."""
        return self.signing_key or self.home / "keys" / "signing.pem"

    @property
    def public_keys(self) -> Path:
        """`trusted_keys` or its embedded default."""
        return self.trusted_keys or self.home / "keys" / "trusted"

    def clock(self) -> datetime:
        """The logical now."""
        return self.now or datetime.now(UTC)
