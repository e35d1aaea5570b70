"""Where every bench writes its figures: `reports/bench/NAME.json`, with the versions and the machine they are of."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from evergreen.settings import ROOT


def record(name: str, figures: Mapping[str, float], packages: Sequence[str], note: str = "") -> Path:
    """Write the figures by name beside the versions of `packages` and what is to be known of the run; returns the file."""
    path = ROOT / "reports" / "bench" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }
    versions = {package: version(package) for package in packages}
    told = {"note": note} if note else {}
    content = told | {"figures": dict(figures), "versions": versions, "machine": machine}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
