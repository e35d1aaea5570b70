"""`python -m stack [--only NAME,...]`: run the Procfile until Ctrl-C, then leave nothing running.

`--only` starts some of its processes (the demo leaves MLflow's pages out). State is under `EVERGREEN_HOME` and is
continued by the next start.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Message, Printer
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from evergreen.adapters.reconciler import reconcile
from evergreen.errors import ConfigurationError, EvergreenError
from evergreen.settings import ROOT, Settings
from evergreen.wiring import wiring
from stack.environment import environment, ready_file
from stack.ports import require_free


def main() -> int:
    """Check, start, relay output, stop all on the first that ends or on a signal."""
    arguments = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    arguments.add_argument("--only", default="", help="names of the Procfile, separated by commas; default all")
    only = [name for name in arguments.parse_args().only.split(",") if name]
    try:
        manager = prepare(only)
    except (EvergreenError, ValidationError, SQLAlchemyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # the terminal was closed
    try:
        manager.loop()
    finally:
        leave_nothing(manager)
        ready_file(Settings()).unlink(missing_ok=True)
    return 0 if manager.returncode in (130, 143) else int(manager.returncode or 0)


def prepare(only: Sequence[str]) -> Manager:
    """A manager with the chosen processes (all, when none is named), not started; raises when something is in the way."""
    settings = Settings()
    processes = parse_procfile((ROOT / "Procfile").read_text()).processes
    chosen = choose(only, list(processes), settings)
    ports = {
        "prefect": ("EVERGREEN_PREFECT_PORT", settings.prefect_port),
        "mlflow": ("EVERGREEN_MLFLOW_PORT", settings.mlflow_port),
        "serving": ("EVERGREEN_SERVING_PORT", settings.serving_port),
    }
    require_free(settings.host, {name: port for name, port in ports.items() if name in chosen})
    settings.home.mkdir(parents=True, exist_ok=True)
    _ = wiring().engine  # migrate once, before several processes open it
    if "mlflow" in chosen:
        registry = wiring().registry  # two processes that open a fresh MLflow database at once break its migrations
        for finding in reconcile(wiring().engine, registry):
            print(f"{finding.model}: {finding.reason}", file=sys.stderr)
    env = environment(settings, chosen)
    ready_file(settings).unlink(missing_ok=True)  # of a stack that was killed
    manager = Manager(Relay(sys.stdout, time_format="%H:%M:%S"))
    for name in chosen:
        manager.add_process(name, "exec " + processes[name], env=env, cwd=str(ROOT))
    return manager


def choose(only: Sequence[str], processes: Sequence[str], settings: Settings) -> Sequence[str]:
    """Those of `processes` to start: the ones named, or all, without MLflow's server where there is one elsewhere."""
    unknown = set(only) - set(processes)
    if unknown:
        raise ConfigurationError(f"--only names {sorted(unknown)}, the Procfile has {sorted(processes)}")
    if not settings.mlflow_elsewhere:
        return only or processes
    if "mlflow" in only:
        raise ConfigurationError(
            f"--only names mlflow, but EVERGREEN_MLFLOW_TRACKING_URI says that it runs at {settings.tracking_uri}; "
            "leave out one of the two"
        )
    return only or [name for name in processes if name != "mlflow"]


class Relay(Printer):
    """Prints what the processes print; with nobody reading any more, it must not keep them from being stopped."""

    def write(self, message: Message) -> None:
        """Print, if anybody still listens."""
        with contextlib.suppress(OSError):
            super().write(message)


def leave_nothing(manager: Manager) -> None:
    """Kill what is left of the processes' groups, whatever ended the loop."""
    for process in manager._processes.values():
        if process.get("pid") and process.get("returncode") is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process["pid"], signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
