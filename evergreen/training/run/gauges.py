"""What the machine tells while it trains: memory, use of the GPU, energy.

Each gauge gives None where the machine does not tell. GPUs are asked through NVML (`nvidia-ml-py`) where that is
installed, CPUs through the kernel's powercap files where they may be read. Called by `progress/chronicle.py` and `spending.py`.
"""

import functools
from pathlib import Path
from typing import Any

import psutil
import torch

POWERCAP = Path("/sys/class/powercap")


def resident_bytes() -> int:
    """Of this process."""
    return int(psutil.Process().memory_info().rss)


def gpu_memory_bytes(device: torch.device) -> int | None:
    """That tensors of this process hold on the device; None on a CPU."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else None


def gpu_use(device: torch.device) -> float | None:
    """Share of the last sample in which the GPU was busy, whoever used it."""
    handle = _handle(device)
    return None if handle is None else _nvml().nvmlDeviceGetUtilizationRates(handle).gpu / 100


def device_name(device: torch.device) -> str:
    """`cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class EnergyMeter:
    """Joules a device has used since this was made: a GPU's own, or those of all CPU packages, whoever used them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._counters = [] if device.type == "cuda" else packages(POWERCAP)
        self._used = 0.0
        self._last = self._read()

    def read(self) -> float | None:
        """None where the device does not tell."""
        now = self._read()
        if now is None or self._last is None:
            return None
        for before, after, size in zip(self._last, now, self._sizes(), strict=True):
            self._used += after - before if after >= before else after - before + size  # a counter starts again at 0
        self._last = now
        return self._used

    def _read(self) -> list[float] | None:
        handle = _handle(self._device)
        if handle is not None:
            return _gpu_joules(handle)
        try:
            return [float(path.read_text()) / 1e6 for path, _ in self._counters] or None
        except (OSError, ValueError):
            return None

    def _sizes(self) -> list[float]:
        return [size for _, size in self._counters] or [0.0]


def packages(powercap: Path) -> list[tuple[Path, float]]:
    """Energy counters of the CPU packages that may be read, and at how many joules each starts again at 0."""
    found = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:
            continue  # a part of a package, which counts it already
        try:
            int((zone / "energy_uj").read_text())
            found.append((zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()) / 1e6))
        except (OSError, ValueError):
            continue  # the kernel lets only root read it, or the machine is virtual
    return found


def _gpu_joules(handle: Any) -> list[float] | None:
    nvml = _nvml()
    try:
        return [nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3]
    except nvml.NVMLError:  # older than Volta
        return None


def _handle(device: torch.device) -> Any:
    """NVML's name of a CUDA device, found by UUID: the two count devices differently."""
    nvml = _nvml() if device.type == "cuda" else None
    if nvml is None:
        return None
    return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


@functools.cache
def _nvml() -> Any:
    try:
        import pynvml  # type: ignore[import-not-found,unused-ignore]

        pynvml.nvmlInit()
    except Exception:  # not installed, or no driver: the gauges stay empty
        return None
    return pynvml
