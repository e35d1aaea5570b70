"""What a verdict on drift costs, beside Evidently's preset on the same rows; and how often each alarms where nothing drifts.

`python -m bench.monitoring` measures 10,000, 100,000 and 1,000,000 predictions of 20 features; `--no-preset-at-1m` leaves
out the one run of the preset that takes a minute and a half. Each measurement is a process of its own; memory is the most
that was allocated beyond the rows, in a run that is not timed; of the verdict the best of three is taken, of the preset
one run.
"""

import argparse
import json
import multiprocessing
import time
import tracemalloc
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.record import record
from evergreen.monitoring.drift import judge_drift
from evergreen.monitoring.sketch import DayCounts, Kind, count_days, fit_binning

SIZES = (10_000, 100_000, 1_000_000)
NUMBERS, CATEGORIES = 15, 5
REFERENCE_DAYS, CURRENT_DAYS = 90, 7
NULL_PAIRS = 200
LEVEL = 0.05


def inputs() -> dict[str, Kind]:
    """Twenty features."""
    numbers: dict[str, Kind] = {f"number_{i}": "numeric" for i in range(NUMBERS)}
    return numbers | {f"category_{i}": "categorical" for i in range(CATEGORIES)}


def rows_of(count: int, days: int, first: int, seed: int) -> pd.DataFrame:
    """Rows whose days have levels of their own; numbers with holes, categories as texts."""
    random = np.random.default_rng(seed)
    day = np.sort(random.integers(first, first + days, size=count))
    columns: dict[str, Any] = {
        "event_timestamp": pd.to_datetime(np.datetime64("2021-01-01", "us") + day.astype("timedelta64[D]"), utc=True)
    }
    for i in range(NUMBERS):
        level = random.normal(size=days)[day - first]
        values = level + random.normal(size=count)
        values[random.random(count) < 0.02] = np.nan
        columns[f"number_{i}"] = values
    names = np.array([f"name {n}" for n in range(40)], dtype=object)
    for i in range(CATEGORIES):
        columns[f"category_{i}"] = names[np.minimum(random.geometric(0.1, size=count), 40) - 1]
    return pd.DataFrame(columns)


def verdict(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    """Ours, from rows to verdict: bins, counts of both sides, permutations."""
    binning = fit_binning(reference, inputs())
    sides = count_days(reference, binning), count_days(current, binning)
    return judge_drift(*sides, binning, level=LEVEL, block_days=1, seed=0).p_value


def preset(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    """Evidently's DataDriftPreset with its defaults; the share of columns that drifted."""
    warnings.simplefilter("ignore")
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    kinds = inputs()
    definition = DataDefinition(
        numerical_columns=[name for name, kind in kinds.items() if kind == "numeric"],
        categorical_columns=[name for name, kind in kinds.items() if kind == "categorical"],
    )
    sides = [Dataset.from_pandas(side[list(kinds)], definition) for side in (current, reference)]
    found = Report([DataDriftPreset()]).run(*sides).dict()["metrics"][0]["value"]
    return float(found["share"])


def measure(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int, times: int) -> dict[str, float]:
    """CPU seconds and memory beyond the rows, in a process of its own; `rows` on each side."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (what, rows, times))


def _measure(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int, times: int) -> dict[str, float]:
    reference = rows_of(rows, REFERENCE_DAYS, 0, seed=1)
    current = rows_of(rows, CURRENT_DAYS, REFERENCE_DAYS, seed=2)
    what(reference.iloc[::10], current.iloc[: rows // 10])  # imports are not the method's
    seconds = []
    for _ in range(times):
        started = time.process_time()
        what(reference, current)
        seconds.append(time.process_time() - started)
    tracemalloc.start()
    what(reference, current)  # once more: tracing slows it down
    return {"cpu_seconds": min(seconds), "mb": tracemalloc.get_traced_memory()[1] / 2**20}


def false_alarms() -> dict[str, float]:
    """Shares of windows that alarm where days differ and nothing drifts."""
    binning, overall, any_feature = None, 0, 0
    for seed in range(NULL_PAIRS):
        frame = rows_of(97 * 60, 97, 0, seed=10_000 + seed)
        binning = fit_binning(frame, inputs())
        counts = count_days(frame, binning)
        last = counts.days >= counts.days[-CURRENT_DAYS]
        sides: tuple[DayCounts, DayCounts] = counts[~last], counts[last]
        found = judge_drift(*sides, binning, level=LEVEL, block_days=1, seed=seed)
        overall += found.p_value <= LEVEL
        any_feature += found.share > 0
    return {"any_moved": overall / NULL_PAIRS, "a_feature_named": any_feature / NULL_PAIRS}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-preset-at-1m", action="store_true")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    table = Table(
        "predictions", "verdict CPU s", "MB", "preset CPU s", "MB", title="20 features, as many reference rows"
    )
    for rows in SIZES:
        ours = measure(verdict, rows, times=3)
        skipped = options.no_preset_at_1m and rows == SIZES[-1]
        theirs = None if skipped else measure(preset, rows, times=1)
        for name, found in (("verdict", ours), ("preset", theirs)):
            figures |= {f"{name}_{rows}_{unit}": value for unit, value in (found or {}).items()}
        cells = [f"{ours['cpu_seconds']:.2f}", f"{ours['mb']:.0f}"]
        cells += ["left out", ""] if theirs is None else [f"{theirs['cpu_seconds']:.2f}", f"{theirs['mb']:.0f}"]
        table.add_row(f"{rows:,}", *cells)
    rates = false_alarms()
    figures |= {f"false_alarm_share_{name}": value for name, value in rates.items()}
    Console().print(table)
    print(f"nothing drifts, {NULL_PAIRS} histories, level {LEVEL}: {json.dumps(rates)}")
    print(record("monitoring", figures, ("numpy", "pandas", "evidently")))


if __name__ == "__main__":
    main()
