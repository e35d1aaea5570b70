"""`python -m stack [--only NAME,...]`: run the Procfile until Ctrl-C, then leave nothing running.

`--only` starts some of its processes (the demo leaves MLflow's pages out). State is under `EVERGREEN_HOME` and is
continued by the next start.
"""

import argparse
import sys
from pathlib import Path

from honcho.environ import parse_procfile
from honcho.manager import Manager
from honcho.printer import Printer

from evergreen.errors import ConfigurationError
from evergreen.settings import ROOT, Settings
from evergreen.wiring import wiring
from stack.environment import environment
from stack.ports import require_free


def main() -> int:
    """Check, start, relay output, stop all on the first that ends or on a signal."""
    arguments = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    arguments.add_argument("--only", default="", help="names of the Procfile, separated by commas; default all")
    only = [name for name in arguments.parse_args().only.split(",") if name]
    settings = Settings()
    processes = parse_procfile((ROOT / "Procfile").read_text()).processes
    unknown = set(only) - set(processes)
    try:
        if unknown:
            raise ConfigurationError(f"--only names {sorted(unknown)}, the Procfile has {sorted(processes)}")
        ports = {
            "prefect": ("EVERGREEN_PREFECT_PORT", settings.prefect_port),
            "mlflow": ("EVERGREEN_MLFLOW_PORT", settings.mlflow_port),
            "serving": ("EVERGREEN_SERVING_PORT", settings.serving_port),
        }
        require_free(settings.host, {k: v for k, v in ports.items() if not only or k in only})
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings.home.mkdir(parents=True, exist_ok=True)
    _ = wiring().engine  # migrate once, before several processes open it
    chosen = only or list(processes)
    if "mlflow" in chosen:
        _ = wiring().registry  # two processes that open a fresh MLflow database at once break its migrations
    env = environment(settings, chosen)
    Path(env["EVERGREEN_READY_FILE"]).unlink(missing_ok=True)
    manager = Manager(Printer(sys.stdout, time_format="%H:%M:%S"))
    for name in chosen:
        manager.add_process(name, "exec " + processes[name], env=env, cwd=str(ROOT))
    manager.loop()
    return 0 if manager.returncode in (130, 143) else int(manager.returncode or 0)


if __name__ == "__main__":
    sys.exit(main())
