"""Evidently itself, on small frames: what counts as drift, what is said about bad input, what stands on the page."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evergreen.adapters.evidently.reports import Kind, drift_report
from evergreen.adapters.evidently.workspace import EvidentlyWorkspace
from evergreen.errors import DataError
from evergreen.types import DriftReport, FeatureDrift, Window

START = datetime(2013, 4, 1, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(days=7))
REFERENCE_WINDOW = Window(start=START - timedelta(days=60), end=START)
INPUTS: dict[str, Kind] = {"temperature": "numeric", "delay_rate": "numeric", "carrier": "categorical"}


def some_rows(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    score = rng.uniform(size=rows)
    return pd.DataFrame(
        {
            "temperature": rng.normal(50, 15, rows),
            "delay_rate": rng.beta(2, 6, rows),
            "carrier": rng.choice(["AA", "UA", "DL", "B6"], rows),
            "score": score,
            "label": (rng.uniform(size=rows) < score).astype(float),
        }
    )


def compare(current: pd.DataFrame, folder: Path, **more: Any) -> DriftReport:
    return drift_report(
        more.pop("reference", some_rows(seed=1)),
        current,
        more.pop("inputs", INPUTS),
        model="flight_delay",
        window=more.pop("window", WINDOW),
        reference_window=REFERENCE_WINDOW,
        html=folder / "drift" / "report.html",
        **more,
    )


def feature(report: DriftReport, name: str) -> FeatureDrift:
    return next(found for found in report.features if found.feature == name)


def test_nothing_drifts_between_two_draws_of_one_distribution(tmp_path: Path) -> None:
    report = compare(some_rows(2_000, seed=2), tmp_path, reference=some_rows(2_000, seed=3))

    assert [f.feature for f in report.features] == list(INPUTS)
    assert report.share == 0.0
    assert (report.rows, report.reference_rows) == (2_000, 2_000)


def test_a_unit_that_changed_drifts_and_the_others_do_not(tmp_path: Path) -> None:
    current = some_rows()
    current["temperature"] = (current["temperature"] - 32) / 1.8

    report = compare(current, tmp_path)

    assert [f.feature for f in report.features if f.drifted] == ["temperature"]
    assert feature(report, "temperature").method == "wasserstein"


def test_a_renamed_category_drifts(tmp_path: Path) -> None:
    current = some_rows()
    current["carrier"] = current["carrier"].replace("UA", "UAL")

    drifted = feature(compare(current, tmp_path), "carrier")

    assert drifted.drifted
    assert drifted.method == "jensenshannon"


def test_a_hundred_categories_do_not_drift_by_sampling_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    before, now = (pd.DataFrame({"dest": rng.choice([f"D{i}" for i in range(105)], 2_000)}) for _ in range(2))

    found = feature(compare(now, tmp_path, reference=before, inputs={"dest": "categorical"}), "dest")

    assert found.score > 0.1, "sampling noise alone is above Evidently's default threshold"
    assert not found.drifted


def test_few_rows_do_not_drift_by_sampling_alone(tmp_path: Path) -> None:
    report = compare(some_rows(100, seed=8), tmp_path, reference=some_rows(100, seed=9))

    assert max(f.score for f in report.features) > 0.1, "sampling noise alone is above Evidently's default threshold"
    assert report.share == 0.0


def test_a_missing_share_that_jumped_drifts_though_the_values_did_not(tmp_path: Path) -> None:
    current = some_rows()
    current.loc[::4, "delay_rate"] = np.nan

    found = feature(compare(current, tmp_path), "delay_rate")

    assert found.drifted
    assert found.method == "missing share"
    assert found.score == pytest.approx(0.25)


@pytest.mark.parametrize("value", [None, np.nan])
@pytest.mark.parametrize("name", ["temperature", "carrier"])
def test_a_column_without_any_value_is_reported_and_does_not_raise(tmp_path: Path, name: str, value: Any) -> None:
    current = some_rows()
    current[name] = pd.Series([value] * len(current), dtype=object)

    found = feature(compare(current, tmp_path), name)

    assert (found.method, found.score, found.drifted) == ("missing share", 1.0, True)


def test_when_no_column_has_a_value_the_report_still_says_so(tmp_path: Path) -> None:
    current = some_rows().assign(**dict.fromkeys(INPUTS, np.nan))

    report = compare(current, tmp_path)

    assert report.share == 1.0
    assert "delay_rate" in Path(report.uri).read_text()


def test_a_column_missing_on_both_sides_alike_has_not_drifted(tmp_path: Path) -> None:
    empty = some_rows().assign(temperature=np.nan)

    found = feature(compare(empty, tmp_path, reference=empty), "temperature")

    assert (found.score, found.drifted) == (0.0, False)


def test_text_in_a_numeric_column_counts_as_missing(tmp_path: Path) -> None:
    current = some_rows()
    current["temperature"] = current["temperature"].astype(object)
    current.loc[:299, "temperature"] = "unknown"

    found = feature(compare(current, tmp_path), "temperature")

    assert found.method == "missing share"
    assert found.score == pytest.approx(0.5)


def test_infinite_and_constant_values_do_not_raise(tmp_path: Path) -> None:
    current = some_rows().assign(temperature=np.inf, delay_rate=0.0)

    report = compare(current, tmp_path)

    assert feature(report, "temperature").method == "missing share"
    assert feature(report, "delay_rate").drifted


def test_an_absent_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"current side .* lacks the features \['carrier'\]"):
        compare(some_rows().drop(columns="carrier"), tmp_path)


def test_an_empty_side_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reference side .* has no rows"):
        compare(some_rows(), tmp_path, reference=some_rows().head(0))


def test_the_page_is_one_file_that_shows_the_figures_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    current = some_rows()
    current["temperature"] += 15

    report = compare(current, tmp_path)

    page = Path(report.uri).read_text()
    assert f"{feature(report, 'temperature').score:.3f}" in page
    assert "missing_before" in page
    assert [path.name for path in Path(report.uri).parent.iterdir()] == ["report.html"]


def test_quality_is_drawn_from_the_labelled_rows_beside_a_scored_reference(tmp_path: Path) -> None:
    current = some_rows()
    current.loc[:99, "label"] = np.nan

    with_reference = Path(compare(current, tmp_path, score="score", label="label").uri).read_text()
    alone = Path(compare(current, tmp_path, score="score", label="label", reference=some_rows()[[*INPUTS]]).uri)

    assert "RocAuc metric (reference)" in with_reference
    page = alone.read_text()
    assert "RocAuc metric" in page
    assert "RocAuc metric (reference)" not in page


def test_quality_is_left_out_while_only_one_outcome_is_known(tmp_path: Path) -> None:
    current = some_rows().assign(label=0.0)

    assert "RocAuc metric" not in Path(compare(current, tmp_path, score="score", label="label").uri).read_text()


def test_asking_again_gives_the_same_figures(tmp_path: Path) -> None:
    assert compare(some_rows(), tmp_path) == compare(some_rows(), tmp_path)


def test_the_adapter_does_not_import_evidently_until_a_report_is_asked_for() -> None:
    code = "import sys, evergreen.adapters.evidently.reports; print('evidently' in sys.modules)"

    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "False"


def test_the_newest_windows_are_kept_for_evidentlys_own_ui_and_a_window_once(tmp_path: Path) -> None:
    from evidently.ui.workspace import Workspace

    kept = EvidentlyWorkspace(tmp_path / "evidently", 2)
    weeks = [Window(start=START + timedelta(days=7 * n), end=START + timedelta(days=7 * n + 7)) for n in range(3)]
    for week in (weeks[0], weeks[1], weeks[2], weeks[1]):
        compare(some_rows(100), tmp_path, window=week, workspace=kept)

    workspace = Workspace.create(str(tmp_path / "evidently" / "workspace"))
    projects = workspace.list_projects()
    assert [project.name for project in projects] == ["flight_delay"]
    runs = [workspace.get_run(projects[0].id, run) for run in workspace.list_runs(projects[0].id)]
    assert sorted(run.timestamp for run in runs) == [week.end for week in weeks[1:]]
    assert {run.name for run in runs} == {str(week) for week in weeks[1:]}
    assert all(len(run.metric_results) >= 1 + len(INPUTS) for run in runs)


def test_telemetry_is_off_once_a_report_was_made(tmp_path: Path) -> None:
    compare(some_rows(50), tmp_path, reference=some_rows(50), inputs={"temperature": "numeric"})

    assert os.environ["DO_NOT_TRACK"] == "1"
