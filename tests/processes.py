"""Processes of others: any of them may end while it is looked at."""

import contextlib
import signal
import subprocess
from typing import Any

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs: one that ended and was not waited for yet does not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def workers_of(server: int) -> list[psutil.Process]:
    """The processes below uvicorn's with this pid that answer."""
    found = []
    for one in psutil.Process(server).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if is_alive(one) and "spawn_main" in " ".join(one.cmdline()):
                found.append(one)
    return found


def killed_alone(process: "subprocess.Popen[Any]") -> list[psutil.Process]:
    """Kill -9 a process and wait for its descendants to see that and end; those that did not within 20 s."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    psutil.wait_procs(family, timeout=60)
    return [one for one in family if is_alive(one)]
