"""Waits until the stack is healthy, applies `prefect.yaml`, prints the addresses, and stays until the stack goes down."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from evergreen.settings import ROOT, Settings
from stack.health import wait_for


def main() -> None:
    """Announce what `EVERGREEN_PROCESSES` names; then write `EVERGREEN_READY_FILE`."""
    settings = Settings()
    host = settings.host
    addresses = {
        "prefect": ("Prefect", f"http://{host}:{settings.prefect_port}", "/api/health"),
        "mlflow": ("MLflow", f"http://{host}:{settings.mlflow_port}", "/health"),
        "serving": ("Serving", f"http://{host}:{settings.serving_port}", "/health"),
    }
    shown = [addresses[name] for name in os.environ["EVERGREEN_PROCESSES"].split(",") if name in addresses]
    for name, url, health in shown:
        wait_for(url + health, name)
    deploy()
    for name, url, _ in shown:
        print(f"{name:<8} {url}" + ("/docs" if name == "Serving" else ""))
    if settings.mlflow_elsewhere:
        print(f"MLflow   {settings.mlflow_ui_url}, which was there before")
    print("Everything is up. Ctrl-C takes it down; the state stays.")
    Path(os.environ["EVERGREEN_READY_FILE"]).write_text("ready\n")
    signal.pause()


def deploy() -> None:
    """Make the work pool and apply every deployment; idempotent."""
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    pool = [*prefect, "work-pool", "create", "evergreen", "--type", "process", "--overwrite"]
    for command in (pool, [*prefect, "deploy", "--all"]):
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"`prefect {' '.join(command[4:])}` failed:\n{done.stdout}{done.stderr}")
    print("Applied every deployment of prefect.yaml.")


if __name__ == "__main__":
    main()
