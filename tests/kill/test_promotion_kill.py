"""Law 6 for promotion: killed with -9 before or after any call, and run again, nothing is lost and nothing is doubled."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from evergreen.settings import ROOT
from stack.environment import QUIET


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_every_call_and_run_again_everything_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """While a reader polls all along and sees one champion at each instant."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kill.promotion_points", str(tmp_path / "work")],
        cwd=ROOT, env=os.environ | QUIET, capture_output=True, text=True, check=False,
    )  # fmt: skip
    points = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]

    assert done.returncode == 0, done.stderr[-3000:]
    assert [point for point in points if point["differs"]] == []
    by_operation = {
        name: sum(point["operation"] == name for point in points)
        for name in (
            "register",
            "roll out",
            "promote",
            "roll back",
            "begin an A/B test",
            "end the A/B test",
            "put right",
        )
    }
    assert min(by_operation.values()) >= 5, by_operation
    assert len(points) >= 60
