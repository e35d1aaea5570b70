"""Where the demo's time goes: `python -m bench.demo` plays it and keeps the seconds of each stage.

Orchestration is what Prefect's flow runs take outside the bodies of their tasks, by Prefect's own clock.
"""

import argparse
import json
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from bench.record import record
from evergreen.settings import ROOT


def main() -> None:
    """Play the demo (or, with `--keep`, take the last one's figures), print the stages and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="report the last `make demo` instead of playing another")
    if not parser.parse_args().keep:
        subprocess.run([sys.executable, "-m", "demo"], cwd=ROOT, check=True)
    told = json.loads((ROOT / "reports" / "demo.json").read_text())
    timings, orchestration = told["timings"], told["orchestration"]
    figures = {f"{stage}_seconds": seconds for stage, seconds in timings.items()}
    figures |= {f"orchestration_{name}": figure for name, figure in orchestration.items()}
    figures["weeks"] = len(told["weeks"])
    table = Table("stage", "seconds", "share", title="make demo")
    for stage, seconds in timings.items():
        table.add_row(stage, f"{seconds:.1f}", f"{seconds / timings['total']:.0%}")
    console = Console()
    console.print(table)
    console.print(
        f"{orchestration['flow_runs']:.0f} flow runs, {orchestration['task_runs']:.0f} task runs: "
        f"{orchestration['outside_tasks_seconds']:.1f} of {orchestration['flow_seconds']:.1f} s outside the tasks "
        f"({orchestration['share']:.1%})"
    )
    console.print(
        f"written to {record('demo', figures, ('prefect', 'feast', 'torch', 'mlflow', 'evidently')).relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
