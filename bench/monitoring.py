"""What a verdict on drift costs, beside Evidently's preset on the same rows; and how often each alarms where nothing drifts.

`python -m bench.monitoring` measures 10,000, 100,000 and 1,000,000 predictions of 20 features; `--no-preset-at-1m` leaves
out the one run of the preset that takes a minute and a half. Beside the verdict: the figures of as many answers with all
outcomes in (of `[monitor].figure_rows` of them), their intervals, slices and the estimate without outcomes.
Every figure has a process of its own. Time is CPU seconds, the best of three (of the preset one run); memory is how far
the resident set rose above what it was with the rows loaded, the kernel's own peak, in the first run of its process.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.memory import begin_peak, peak_mib, resident_mib
from bench.record import record
from evergreen.monitoring.drift import judge_drift
from evergreen.monitoring.performance import performance
from evergreen.monitoring.sketch import DayCounts, Kind, count_days, fit_binning
from evergreen.spec import MonitorConfig
from evergreen.types import Window

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
    columns["example_id"] = [f"row {n}" for n in range(count)]
    columns["version"] = 1
    columns["score"] = random.beta(2, 6, size=count)
    columns["label"] = (random.random(count) < columns["score"]).astype(float)
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


def figures(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    """Everything said of the answers' quality: realised by days and by 40 slices, and estimated without outcomes."""
    start = current["event_timestamp"].min().to_pydatetime()
    window = Window(start=start, end=start + timedelta(days=CURRENT_DAYS))
    report = performance(
        current,
        model="bench",
        version=1,
        window=window,
        config=MonitorConfig(),
        earlier=reference,
        slices=["category_0"],
    )
    assert report.estimate is not None
    return report.intervals["auc"].figure


def measure(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int, times: int) -> dict[str, float]:
    """CPU seconds and memory beyond the rows, each in a process of its own; `rows` on each side."""
    found: dict[str, float] = {}
    for part in (_seconds, _peak):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found |= pool.apply(part, (what, rows, times))
    return found


def _loaded(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both sides; what `what` imports is imported."""
    reference = rows_of(rows, REFERENCE_DAYS, 0, seed=1)
    current = rows_of(rows, CURRENT_DAYS, REFERENCE_DAYS, seed=2)
    few = max(rows // 2_000, 1)
    what(reference.iloc[::few], current.iloc[::few])
    return reference, current


def _seconds(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int, times: int) -> dict[str, float]:
    reference, current = _loaded(what, rows)
    seconds = []
    for _ in range(times):
        started = time.process_time()
        what(reference, current)
        seconds.append(time.process_time() - started)
    return {"cpu_seconds": min(seconds)}


def _peak(what: Callable[[pd.DataFrame, pd.DataFrame], float], rows: int, _times: int) -> dict[str, float]:
    reference, current = _loaded(what, rows)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what loading needed for a moment would hide what is measured
    begin_peak()
    loaded = resident_mib()
    what(reference, current)
    return {"mb": peak_mib() - loaded, "loaded_mb": loaded}


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
    found: dict[str, float] = {}
    heads = (f"{name} {unit}" for name in ("verdict", "figures", "preset") for unit in ("CPU s", "MB"))
    table = Table("predictions", *heads, title="20 features, as many reference rows; MB above the loaded rows")
    for rows in SIZES:
        skipped = options.no_preset_at_1m and rows == SIZES[-1]
        cells = []
        for name, what, times in (("verdict", verdict, 3), ("figures", figures, 3), ("preset", preset, 1)):
            if name == "preset" and skipped:
                cells += ["left out", ""]
                continue
            measured = measure(what, rows, times)
            found |= {f"{name}_{rows}_{unit}": value for unit, value in measured.items()}
            cells += [f"{measured['cpu_seconds']:.2f}", f"{measured['mb']:.0f}"]
        table.add_row(f"{rows:,}", *cells)
    rates = false_alarms()
    found |= {f"false_alarm_share_{name}": value for name, value in rates.items()}
    Console().print(table)
    print(f"nothing drifts, {NULL_PAIRS} histories, level {LEVEL}: {json.dumps(rates)}")
    print(record("monitoring", found, ("numpy", "pandas", "evidently")))


if __name__ == "__main__":
    main()
