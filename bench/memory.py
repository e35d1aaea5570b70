"""What this process has in memory, in MiB, as Linux counts it; `getrusage` would also count who started the process."""

from pathlib import Path


def resident_mib() -> float:
    """Now."""
    return _status("VmRSS")


def peak_mib() -> float:
    """The most since `begin_peak`, or since the process began."""
    return _status("VmHWM")


def begin_peak() -> None:
    """Let the peak start from what is resident now (man 5 proc)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1]) / 1024
