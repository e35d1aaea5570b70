"""A backtest of another domain, through the same code; killed, it goes on and comes to the same."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evergreen.errors import SpecError
from evergreen.monitoring.backtest.rehearsals import Span
from evergreen.monitoring.backtest.report import BacktestReport
from evergreen.settings import ROOT
from evergreen.training.rehearsal import Stage
from tasks.backtest import recommendation
from tasks.plays import by_default, fit, played_policies
from tasks.rehearsal import playable, rehearsal_of
from tests.shop_history import DEARER, START, WEEKS, shop_history, shop_spec

SPAN = Span(START + timedelta(weeks=8), START + timedelta(weeks=WEEKS), 7)
DEARER_AT = START + timedelta(weeks=DEARER)


def whole_backtest(folder: Path, tell: Callable[[str], None] = print) -> BacktestReport:
    """From rows to report, models kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = shop_history(folder)
    with Stage(1) as stage:
        rehearsal = rehearsal_of(shop_spec(), rows, folder / "models", SPAN, stage, 1)
        return played_policies(rehearsal, fit(rehearsal), by_default(rehearsal), tell)


def figures(report: BacktestReport) -> dict[str, object]:
    """All but the time it took."""
    told: dict[str, Any] = json.loads(report.model_dump_json())
    for policy in told["policies"]:
        del policy["training_seconds"]
    return told


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> BacktestReport:
    return whole_backtest(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_domain_is_played_by_the_same_code(uninterrupted: BacktestReport) -> None:
    by_name = {policy.name: policy for policy in uninterrupted.policies}

    assert by_name["never"].gain_share == 0.0
    assert by_name["weekly"].gain_share == 1.0
    assert by_name["weekly"].log_loss < by_name["never"].log_loss - 0.02  # the drift is real
    assert by_name["fitted"].gain_share > 0.7
    assert by_name["fitted"].retrains <= 0.15 * (SPAN.slots[-1] - SPAN.first) / timedelta(days=7) + 1
    assert uninterrupted.fitted_on.end == uninterrupted.played.start


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_it_goes_on_and_comes_to_the_same(tmp_path: Path, uninterrupted: BacktestReport) -> None:
    folder = tmp_path / "killed"
    program = (
        "from pathlib import Path; from tests.unit.test_backtest_other_domain import whole_backtest\n"
        f"if __name__ == '__main__': whole_backtest(Path({str(folder)!r}))\n"
    )
    script = tmp_path / "run.py"
    script.write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    try:
        while len(list((folder / "models").glob("*.npz"))) < 6:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.05)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "models").glob("*.npz")}

    told: list[str] = []
    resumed = whole_backtest(folder, told.append)

    assert figures(resumed) == figures(uninterrupted)
    assert len(told) == 10
    assert re.fullmatch(r"(\d+) of \1 plays are over", told[-1])
    now = {path.name: path.stat().st_mtime_ns for path in (folder / "models").glob("*.npz")}
    assert kept.items() <= now.items()  # what was finished was not done again


def test_a_window_that_slides_is_refused_before_anything_is_built() -> None:
    sliding = shop_spec()
    grows = sliding.model_copy(update={"train": sliding.train.model_copy(update={"history_start": START.date()})})

    assert playable(grows) is grows
    with pytest.raises(
        SpecError, match=r"the training window of churn slides over 90 days; .* Set \[train\]\.history_start"
    ):
        playable(sliding)


def test_the_recommended_spec_differs_in_what_was_fitted_alone() -> None:
    text = (ROOT / "models" / "flight_delay.toml").read_text()
    spec = shop_spec()
    fitted = spec.model_copy(
        update={
            "monitor": spec.monitor.model_copy(update={"max_age_days": 49, "min_probe_gain": 0.005}),
            "remedy": spec.remedy.model_copy(update={"routine": "fine_tune"}),
        }
    )

    lines = set(recommendation(text, fitted).splitlines())

    assert {"max_age_days = 49", "min_probe_gain = 0.005", 'routine = "fine_tune"'} <= lines
    assert len(set(text.splitlines()) - lines) <= 4

    asks_for_more = text.replace("[monitor]", "[monitor]\nmax_estimated_rise = 0.03\nmax_drift_share = 0.3")
    assert recommendation(asks_for_more, fitted) == recommendation(text, fitted)  # as it was played: without these
