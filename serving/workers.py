"""Several serving processes behind one socket: `EVERGREEN_SERVING_WORKERS` of them, each with every model.

uvicorn's supervisor starts them, and another for one that ends or hangs; one that is killed loses no answer, since the
next opens its spool. What they count is summed at `/metrics`, whichever of them is asked. They end with their parent.
"""

import multiprocessing
import os
import socket
import tempfile

import uvicorn
from fastapi import FastAPI
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from evergreen.settings import Settings
from evergreen.training.run.processes import die_with_parent
from serving.metrics import FOLDER

HEALTH_SECONDS = 60
"""A worker that does not say for so long that it is alive is replaced; loading a model keeps it busy for seconds."""


def run(settings: Settings, listener: socket.socket, grace_seconds: int) -> None:
    """Serve until told to stop. Raises `SystemExit` where a worker cannot open; it has logged why."""
    config = uvicorn.Config(
        "serving.workers:worker",
        factory=True,
        workers=settings.serving_workers,
        log_level="info",
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
        timeout_worker_healthcheck=HEALTH_SECONDS,
    )
    with tempfile.TemporaryDirectory(prefix="evergreen-metrics-") as counts:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = counts  # read by prometheus_client when a worker imports it
        os.environ[FOLDER] = counts
        supervisor = Multiprocess(config, sockets=[listener])
        supervisor.run()
    if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise SystemExit(STARTUP_FAILURE)


def worker() -> FastAPI:
    """The app of one worker, from its environment."""
    from serving.__main__ import configure_logging
    from serving.app import create_app

    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with_parent(parent.pid)
    configure_logging()
    return create_app(Settings())
