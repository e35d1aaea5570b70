"""What every process of the stack finds in its environment: one place for addresses and vendor switches."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from evergreen.settings import ROOT, Settings

QUIET = {  # each a default: what the user has set stays
    "DO_NOT_TRACK": "1",
    "FEAST_USAGE": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore",  # the vendors deprecate one another's calls at every start
}


def ready_file(settings: Settings) -> Path:
    """There while everything is up."""
    return settings.home / "stack.ready"


def environment(settings: Settings, processes: Sequence[str]) -> dict[str, str]:
    """The environment for the Procfile's processes.

    What the user has set stays, but for where the stack's own Prefect is and keeps its state: with another `PREFECT_API_URL`
    deployments and runs would go to a server that is none of this stack's.
    """
    host = settings.host
    mlflow_url = settings.tracking_uri if settings.mlflow_elsewhere else f"http://{host}:{settings.mlflow_port}"
    if "mlflow_ui_url" in settings.model_fields_set:
        mlflow_url = settings.mlflow_ui_url
    ours = {
        "EVERGREEN_HOME": str(settings.home),
        "EVERGREEN_HOST": host,
        "EVERGREEN_PREFECT_PORT": str(settings.prefect_port),
        "EVERGREEN_MLFLOW_PORT": str(settings.mlflow_port),
        "EVERGREEN_SERVING_PORT": str(settings.serving_port),
        "EVERGREEN_MLFLOW_UI_URL": mlflow_url,
        "EVERGREEN_MLFLOW_STORE": settings.tracking_uri,
        "EVERGREEN_MLFLOW_ARTIFACTS": str(settings.home / "mlartifacts"),
        "EVERGREEN_PROCESSES": ",".join(processes),
        "EVERGREEN_READY_FILE": str(ready_file(settings)),
        "PREFECT_HOME": str(settings.home / "prefect"),
        "PREFECT_API_URL": f"http://{host}:{settings.prefect_port}/api",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(settings.prefect_port),
        "PREFECT_UI_URL": f"http://{host}:{settings.prefect_port}",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    pythonpath = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return QUIET | os.environ | ours | {"PATH": path, "PYTHONPATH": pythonpath}
