"""The real Optuna over both databases: a search that goes on, beside Evergreen's own tables."""

import itertools
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from evergreen.adapters import studies
from evergreen.adapters.database import migrate, open_engine
from evergreen.adapters.studies import Report, Study, studies_url
from evergreen.adapters.tables import Base
from evergreen.errors import TrainingFailed
from evergreen.settings import ROOT
from evergreen.spec import TuneConfig, load_spec
from evergreen.tuning import Axis, Value, axes_of, present, with_values
from evergreen.types import Cost, Trial
from tests.databases import database_url, postgres_url

AXES = (Axis("learning_rate", 1e-4, 1e-1, logarithmic=True), Axis("hidden", choices=("8", "16")))
PRESENT: dict[str, Value] = {"learning_rate": 5e-2, "hidden": "8"}
COST = Cost(device="cpu", devices=1, seconds=1.0, device_seconds=2.0)


def bowl(values: dict[str, Value], report: Report) -> tuple[float | None, Cost | None]:
    """Best at 1e-2 with 16."""
    return abs(float(values["learning_rate"]) - 1e-2) + 0.01 * (values["hidden"] == "8"), COST


def a_study(url: str, trials: int = 6) -> Study:
    return Study(url, "toy", TuneConfig(trials=trials), AXES, PRESENT)


def ignore(trial: Trial) -> None:
    pass


@pytest.fixture
def url(database_url: str) -> Any:
    yield database_url
    if "postgres" in database_url:
        engine = open_engine(database_url)
        with engine.begin() as connection:
            schema = connection.scalar(text("SELECT current_schema()"))
            connection.execute(text(f'DROP SCHEMA IF EXISTS "{schema}_studies" CASCADE'))
        engine.dispose()


def test_a_trial_is_known_by_the_very_values_that_were_tried(url: str) -> None:
    tried: list[dict[str, Value]] = []
    axes = (*AXES, Axis("batch_size", choices=(1024, 2048)), Axis("epochs", 1, 6, whole=True))

    def objective(values: dict[str, Value], report: Report) -> tuple[float | None, Cost | None]:
        tried.append(values)
        return bowl(values, report)

    with Study(url, "toy", TuneConfig(trials=4), axes, {**PRESENT, "batch_size": 1024, "epochs": 4}) as study:
        study.search(objective, 1, ignore)

        assert [repr(trial.values) for trial in study.trials] == [repr(values) for values in tried]


def test_a_search_begins_with_the_present_values_and_goes_on_where_it_was(url: str) -> None:
    with a_study(url, trials=4) as first:
        first.search(bowl, 1, ignore)
    with a_study(url, trials=6) as again:
        again.search(bowl, 1, ignore)
        trials = again.trials
        again.search(bowl, 1, ignore)
        assert again.trials == trials, "there is nothing left to do"

    assert (first.goes_on, again.goes_on) == (False, True)
    assert trials[0].values == PRESENT
    assert [trial.number for trial in trials] == list(range(6))
    assert {trial.state for trial in trials} == {"complete"}
    assert trials[0].cost == COST
    assert len({trial.values["learning_rate"] for trial in trials}) == 6, "nothing is tried twice"


def test_a_search_goes_on_once_its_best_values_are_the_present_ones(url: str) -> None:
    spec = load_spec(ROOT / "models" / "flight_delay.toml")
    adopted = with_values(spec, {"hidden": "512-256", "batch_size": 2048})

    for trials, one in ((2, spec), (4, adopted)):
        with Study(url, "toy", TuneConfig(trials=trials), axes_of(one), present(one)) as study:
            study.search(bowl, 1, ignore)
            found = study.trials

    assert [trial.state for trial in found] == ["complete"] * 4
    assert found[2].values == present(adopted), "they are tried next"


def test_its_tables_and_evergreens_do_not_meet(url: str) -> None:
    with a_study(url):
        pass
    migrate(url)  # Evergreen's Alembic still finds its own revision

    engine = open_engine(url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    engine.dispose()
    theirs = open_engine(studies_url(url))
    assert {"studies", "trials", "alembic_version"} <= set(inspect(theirs).get_table_names())
    theirs.dispose()


def test_a_hopeless_trial_is_pruned_and_a_broken_one_ends_nothing(tmp_path: Path) -> None:
    asked: list[bool] = []

    def objective(values: dict[str, Value], report: Report) -> tuple[float | None, Cost | None]:
        number = len(asked)
        asked.append(False)
        if number == 2:
            raise TrainingFailed("it diverged")
        for stage in range(1, 4):
            if report(stage, 0.5 + (number == 6) * 5):
                asked[-1] = True
                return None, COST
        return 0.5, None

    told: list[Trial] = []
    with a_study(f"sqlite:///{tmp_path / 'evergreen.db'}", trials=7) as study:
        study.search(objective, 1, told.append)
        trials = study.trials

    assert [trial.state for trial in trials] == ["complete"] * 2 + ["failed"] + ["complete"] * 3 + ["pruned"]
    assert [trial.failure for trial in trials] == [None] * 2 + ["it diverged"] + [None] * 4
    assert asked == [False] * 6 + [True]
    assert trials[-1].cost == COST, "what is given up is paid for too"
    assert [trial.number for trial in told] == list(range(7))


def test_trials_run_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=60)
    begun = itertools.count()

    def objective(values: dict[str, Value], report: Report) -> tuple[float | None, Cost | None]:
        if next(begun):  # the present values are tried first, alone
            together.wait()
        return bowl(values, report)

    with a_study(f"sqlite:///{tmp_path / 'evergreen.db'}", trials=5) as study:
        study.search(objective, 2, ignore)
        trials = study.trials

    assert [trial.state for trial in trials] == ["complete"] * 5
    assert next(begun) == 5, "no trial ran twice"


def hang(url: str, marker: str) -> None:
    def objective(values: dict[str, Value], report: Report) -> tuple[float | None, Cost | None]:
        if Path(marker).exists():
            Path(marker).with_suffix(".second").touch()
            time.sleep(600)
        Path(marker).touch()
        return bowl(values, report)

    with a_study(url, trials=3) as study:
        study.search(objective, 1, ignore)


@pytest.mark.slow
def test_a_trial_whose_process_was_killed_is_tried_again_with_its_values(tmp_path: Path) -> None:
    url, marker = f"sqlite:///{tmp_path / 'evergreen.db'}", tmp_path / "first"
    process = multiprocessing.get_context("spawn").Process(target=hang, args=(url, str(marker)))
    process.start()
    deadline = time.monotonic() + 120
    while not marker.with_suffix(".second").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()

    with a_study(url, trials=3) as study:
        study.search(bowl, 1, ignore)
        trials = study.trials

    killed = trials[1]
    assert killed.state == "failed"
    again = [trial for trial in trials if trial.values == killed.values and trial.state == "complete"]
    assert len(again) == 1
    assert sum(trial.state == "complete" for trial in trials) == 3
    assert studies.GRACE_SECONDS >= 3 * studies.HEARTBEAT_SECONDS
