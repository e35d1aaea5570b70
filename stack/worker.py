"""The process worker: waits until Prefect's server answers, then polls the pool `evergreen` (made if missing)."""

import os
import sys

from evergreen.settings import Settings
from stack.health import wait_for


def main() -> None:
    """Replace this process by the worker, so that signals reach it."""
    settings = Settings()
    wait_for(f"http://{settings.host}:{settings.prefect_port}/api/health", "Prefect")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "evergreen", "--type", "process"]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
