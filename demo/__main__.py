"""`make demo`: the flight-delay model's first months, then weeks of 2013 played through the loop.

Starts clean each time, in a home of its own (`.evergreen/demo`) and on ports of its own, so it neither disturbs a stack
that is up nor trips over what an interrupted demo left. Ends with a table, `reports/demo.json` and `reports/demo.html`.
"""

import argparse
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from evergreen.errors import ConfigurationError, EvergreenError
from evergreen.settings import ROOT, Settings
from stack.environment import environment
from stack.ports import free_port

PROCESSES = ("prefect", "worker", "serving", "herald")
START_SECONDS = 180.0


def main() -> int:
    """Parse, start the stack, play, stop the stack."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--weeks", type=int, default=8, help="weeks to play after 1 April (1 to 38, default 8)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT, help="what gets .evergreen/demo and reports/ (default: where this code is)"
    )
    begun = time.perf_counter()
    arguments = parser.parse_args()
    weeks, folder = arguments.weeks, arguments.folder.resolve()
    console = Console() if sys.stdout.isatty() else Console(width=132)
    if not 1 <= weeks <= 38:
        console.print(f"error: --weeks {weeks}: 2013 has 38 weeks after 1 April; ask for 1 to 38")
        return 2
    home, reports = folder / ".evergreen" / "demo", folder / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    try:
        with alone(home):
            shutil.rmtree(home, ignore_errors=True)
            settings = own_settings(home)
            os.environ.update(environment(settings, PROCESSES))
            warnings.simplefilter("ignore")  # as `PYTHONWARNINGS` says to the stack's processes
            os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"  # progress is shown by us
            with stack(reports / "demo-stack.log") as process:
                from demo.story import tell  # Prefect reads its environment when it is imported

                tell(console, weeks, reports, begun, lambda: ready(process, reports / "demo-stack.log"))
    except EvergreenError as error:
        console.print(f"[red]error:[/] {error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted; everything is stopped. `make demo` starts it again from the beginning.")
        return 130
    return 0


def own_settings(home: Path) -> Settings:
    """Settings of this demo: its own home, ports nobody uses."""
    ports = {f"EVERGREEN_{name}_PORT": str(free_port("127.0.0.1")) for name in ("PREFECT", "SERVING")}
    os.environ.update({"EVERGREEN_HOME": str(home), "EVERGREEN_HOST": "127.0.0.1"} | ports)
    return Settings()


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold the demo's lock; it falls with the process."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError("another `make demo` is running here; wait for it or stop it first") from error
        yield


@contextmanager
def stack(log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Prefect, a worker and the serving API in the background, gone at the end however it ends."""
    command = [sys.executable, "-m", "stack", "--only", ",".join(PROCESSES)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            preexec_fn=_die_with_parent,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the herald says that all is up; raises `ConfigurationError` with the log's end otherwise."""
    flag = Path(os.environ["EVERGREEN_READY_FILE"])
    deadline = time.monotonic() + START_SECONDS
    while not flag.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise ConfigurationError(f"the stack did not come up; the end of {log.name}:\n{tail}")
        time.sleep(0.2)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Everything is stopped and written. An orderly exit would have DuckDB's binding list what Prefect's threads still hold.
    os._exit(status)
