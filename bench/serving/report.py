"""The bench's table and file."""

from collections.abc import Mapping
from math import nan

from rich.console import Console
from rich.table import Table

from bench.record import record
from bench.serving.lookups import BATCHES
from bench.serving.peers import PEERS
from bench.serving.ways import WAYS
from evergreen.settings import ROOT

Figures = dict[str, float]
OURS = "evergreen_given"
"""Beside whom the peers stand: they look nothing up either."""


def report(figures: Figures, reasons: Mapping[str, str], connections: int) -> None:
    """Print the table and write the figures, with what did not run and why."""
    ours = figures.get(f"{OURS}_saturated_per_second")
    table = Table(
        "",
        f"rows/s, {connections} connections",
        "CPU ms a row",
        "of it the first thread's",
        "Evergreen (given) is",
        "p50 · p99 ms at half (answers)",
        "p50 ms alone",
        "failed",
    )
    for name, way in WAYS.items():
        if name in reasons or f"{name}_saturated_per_second" not in figures:
            table.add_row(way.title, "not run", "", "", "", reasons.get(name, "not asked for")[-200:], "", "")
            continue
        found = {key.removeprefix(f"{name}_"): value for key, value in figures.items() if key.startswith(f"{name}_")}
        times = ours / found["saturated_per_second"] if ours else None
        if times is not None:
            figures[f"{OURS}_over_{name}"] = times
        table.add_row(
            way.title,
            f"{found['saturated_per_second']:,.0f}",
            f"{found.get('saturated_cpu_ms', nan):.2f}",
            f"{found.get('saturated_loop_cpu_ms', nan):.2f}",
            f"{times:.1f} times" if times and name != OURS else "",
            f"{found.get('half_p50_ms', nan):.2f} · {found.get('half_p99_ms', nan):.2f}"
            f" ({found.get('half_answered', nan):,.0f})",
            f"{found.get('alone_p50_ms', nan):.2f}",
            f"{found['alone_failed'] + found['saturated_failed'] + found['half_failed']:.0f}",
        )
    console = Console()
    console.print(table)
    looked_up = Table("features of", "Evergreen, CPU ms", "raw multi-get, CPU ms", "ratio")
    for store in ("sqlite", "redis"):
        for rows in BATCHES:
            ours_ms, raw_ms, ratio = (
                figures[f"lookup_{store}_{rows}_{figure}"] for figure in ("ours_cpu_ms", "raw_cpu_ms", "over_raw")
            )
            looked_up.add_row(f"{rows} rows, {store}", f"{ours_ms:.3f}", f"{raw_ms:.3f}", f"{ratio:.2f}")
    console.print(looked_up)
    console.print(f"the load generator alone: {figures['generator_ceiling_per_second']:,.0f}/s")
    not_run = "; ".join(f"not run: {name}: {reason}" for name, reason in reasons.items())
    packages = ("torch", "fastapi", "uvicorn", "feast", "mlflow")
    path = record("serving", figures, packages, "; ".join([*PEERS.values(), *([not_run] if not_run else [])]))
    console.print(f"written to {path.relative_to(ROOT)}")
