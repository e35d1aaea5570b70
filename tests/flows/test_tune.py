"""A search for better values end to end: real flights, a real Prefect server, a real study."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from evergreen.adapters.feature_tables import content_digest
from evergreen.spec import load_spec
from evergreen.tuning import with_values
from evergreen.types import Tuning
from evergreen.wiring import Wiring
from flows.tune import tune
from tasks.tune import try_values
from tests.flow_worlds import FIRST, flow_process, living_in
from tests.processes import killed_alone
from tests.training_factories import a_spec, a_training_set

MODEL = "flight_delay"
TUNE = """
[tune]
trials = 3
holdout_days = 7
epochs = [1, 1]
hidden = [[32, 16], [64, 32]]
weight_decay = []
input_noise = []
batch_size = []

[gate]"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_it_writes_the_best_values_as_a_spec_to_compare_and_changes_nothing(
    world: Wiring, rewrite_spec: Callable[[str, str], None]
) -> None:
    rewrite_spec("\n[gate]", TUNE)
    before = (world.settings.models_dir / "flight_delay.toml").read_text()

    tuning = tune(MODEL, FIRST)

    assert [trial.state for trial in tuning.trials] == ["complete"] * 3
    assert tuning.present == tuning.trials[0]
    assert tuning.best.loss == min(trial.loss for trial in tuning.trials if trial.loss is not None)
    assert all(trial.cost is not None and trial.cost.device_seconds > 1 for trial in tuning.trials)
    assert (world.settings.models_dir / "flight_delay.toml").read_text() == before
    spec = world.spec(MODEL)
    tuned = Path(tuning.uri).with_name("flight_delay.toml")
    tuned.write_text(Path(tuning.uri).read_text())
    assert load_spec(tuned) == with_values(spec, tuning.best.values)
    assert tuning.diff.startswith("--- flight_delay.toml\n+++ flight_delay.tuned.toml\n") == (
        tuning.best != tuning.present
    )
    assert list((world.settings.artifacts / "tune" / MODEL).iterdir()) == []


def test_equal_values_that_are_tried_at_once_do_not_take_each_others_folder(tmp_path: Path) -> None:
    rows, spec = a_training_set(tmp_path), a_spec()
    rows = rows.model_copy(update={"digest": content_digest(pd.read_parquet(rows.uri))})

    with living_in(tmp_path / "home"), ThreadPoolExecutor(2) as pool:
        tried = [pool.submit(try_values, spec, rows, lambda *_: False, None) for _ in range(2)]
        losses = {one.result()[0] for one in tried}

    assert len(losses) == 1
    assert losses != {None}


RUN = """
import sys
from datetime import datetime
from flows.tune import tune
print("TUNING " + tune("flight_delay", datetime.fromisoformat(sys.argv[1])).model_dump_json(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_in_a_trial_and_run_again_it_goes_on_in_the_same_study(
    world: Wiring, rewrite_spec: Callable[[str, str], None], prefect_api: str
) -> None:
    rewrite_spec("\n[gate]", TUNE)
    rewrite_spec("epochs = 1\n", "epochs = 1\ncheckpoint_seconds = 0\n")  # the first when the trial has just begun
    home = world.settings.home
    killed = flow_process(home, prefect_api, RUN)
    deadline = time.monotonic() + 240
    while not list((home / "training" / "tune" / MODEL).glob("*/checkpoints/*")):
        assert killed.poll() is None, killed.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert killed_alone(killed) == []

    again = flow_process(home, prefect_api, RUN)
    output, _ = again.communicate(timeout=280)

    (line,) = [line for line in output.splitlines() if line.startswith("TUNING ")]
    tuning = Tuning.model_validate_json(line.removeprefix("TUNING "))
    assert "going on with the study" in output
    assert sum(trial.state == "complete" for trial in tuning.trials) == 3
    failed = [trial for trial in tuning.trials if trial.state == "failed"]
    assert len(failed) == 1
    assert [trial.state for trial in tuning.trials if trial.values == failed[0].values] == ["failed", "complete"]
