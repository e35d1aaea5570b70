"""How good is the flagship's model beside boosted trees and logistic regression? `python -m bench.quality`.

All flights of 2013 (made once, in a folder that is kept). For each month from March to November, three models learn the
flights up to its end, with what was known by then, and are judged on the month after: Evergreen's network through the
real training engine, on the ranks of the model's file; LightGBM, searched on the latest days for as many CPU seconds as
the network took, then fitted to all; logistic regression. The very same rows and features for all three. What a month
came to is kept, so a bench that is stopped goes on; `--fresh` starts anew. Prints a table and writes
`reports/bench/quality.json`.
"""

import argparse
import json
import os
import resource
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.record import record
from evergreen.adapters import boosted_trees, logistic
from evergreen.adapters.feature_tables import build_training_set, load_training_set
from evergreen.evaluation import score_rows
from evergreen.settings import ROOT, Settings
from evergreen.spec import ModelSpec
from evergreen.training.predictor import Predictor
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import TrainingSet
from evergreen.wiring import Wiring, code_revision

MODEL = "flight_delay"
MONTHS = range(3, 12)
END = datetime(2014, 1, 3, tzinfo=UTC)
NAMES = {"evergreen": "Evergreen", "lightgbm": "LightGBM", "logistic": "logistic regression"}
SEARCH: Sequence[Mapping[str, float]] = (
    boosted_trees.PLAIN,
    {**boosted_trees.PLAIN, "num_leaves": 63, "min_data_in_leaf": 100, "feature_fraction": 0.7, "lambda_l2": 0.0},
    {**boosted_trees.PLAIN, "num_leaves": 15, "min_data_in_leaf": 500, "lambda_l2": 10.0},
    {"learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 20},
    {**boosted_trees.PLAIN, "learning_rate": 0.03},
)
"""LightGBM's: in this order, while time is left."""
ROUNDS = 1_500
Figures = dict[str, float]


def main() -> None:
    """Train and judge every month that is not kept yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    parser.add_argument("--months", type=int, nargs="+", default=list(MONTHS), choices=MONTHS, metavar="3..11")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs of this code came to")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = Settings(home=arguments.home)
    kept = settings.home / "quality" / code_revision()
    if arguments.fresh:
        shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True, exist_ok=True)
    make_tables(settings)
    found: dict[int, Figures] = {}
    for month in track(sorted(set(arguments.months)), "months", console=Console(stderr=True)):
        file = kept / f"{month}.json"
        if not file.is_file():
            file.with_suffix(".new").write_text(json.dumps(one_month(Wiring(settings), month)))
            file.with_suffix(".new").replace(file)
        found[month] = json.loads(file.read_text())
    report(found)


def make_tables(settings: Settings) -> None:
    """Raw and feature tables of the whole year, where they are not there yet."""
    from feature_repo.flights import pipeline

    pipeline.ingest(settings.data, END)
    pipeline.build(settings.data, END)


def one_month(wire: Wiring, month: int) -> Figures:
    """Figures of the three models that learnt up to the end of a month, on the month after it."""
    start, end = (datetime(2013 + later // 12, later % 12 + 1, 1, tzinfo=UTC) for later in (month, month + 1))
    spec = wire.spec(MODEL)
    spec = spec.model_copy(
        update={"train": spec.train.model_copy(update={"holdout_days": (end - start).days, "abandon_margin": None})}
    )
    training_set = build_training_set(wire.settings.data, spec, wire.features, end)
    rows = load_training_set(training_set)
    before = (rows["event_timestamp"] < start).to_numpy()
    training, test = rows[before], rows[~before]
    figures: Figures = {"training_rows": float(len(training)), "test_rows": float(len(test))}
    figures |= judged("evergreen", test, *network(spec, training_set, wire.settings, test))
    budget = figures["evergreen_cpu_seconds"]
    figures |= judged("lightgbm", test, *trees(training, test, training_set, budget))
    figures |= judged("logistic", test, *linear(training, test, training_set))
    return figures


def network(
    spec: ModelSpec, training_set: TrainingSet, settings: Settings, test: pd.DataFrame
) -> tuple[NDArray[np.float64], Figures]:
    """Evergreen's scores: trained as a retrain trains, scored as a server scores."""
    job = TrainingJob(
        training_set=training_set,
        spec=spec,
        code_revision=code_revision(),
        folder=str(settings.home / "quality" / "jobs"),
    )
    shutil.rmtree(job.path, ignore_errors=True)  # half a job's seconds would be half the truth
    cpu, wall = children_cpu_seconds(), time.monotonic()
    model = train(job, on_line=lambda _: None)
    costs = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": children_cpu_seconds() - cpu}
    predictor = Predictor.load(model.uri, model.digest)
    scores = predictor.score(predictor.columns(test))
    shutil.rmtree(job.path)
    return scores, costs


def trees(
    training: pd.DataFrame, test: pd.DataFrame, training_set: TrainingSet, budget: float
) -> tuple[NDArray[np.float64], Figures]:
    """LightGBM's scores: the search ends with the first settings that end after `budget` CPU seconds."""
    cpu, wall = time.process_time(), time.monotonic()
    days = np.asarray(training["event_timestamp"].dt.tz_localize(None))
    labels = training["label"].to_numpy()
    fitted = boosted_trees.fit(
        "binary", training, labels, days, training_set.features, SEARCH, rounds=ROUNDS, cpu_seconds=budget
    )
    costs = {"wall_seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu, "tried": fitted.tried}
    return fitted.scores(test), costs


def linear(
    training: pd.DataFrame, test: pd.DataFrame, training_set: TrainingSet
) -> tuple[NDArray[np.float64], Figures]:
    """Logistic regression's scores."""
    cpu, wall = time.process_time(), time.monotonic()
    fitted = logistic.fit("binary", training, training["label"].to_numpy(), training_set.features)
    return fitted.scores(test), {
        "wall_seconds": time.monotonic() - wall,
        "cpu_seconds": time.process_time() - cpu,
    }


def judged(name: str, test: pd.DataFrame, scores: NDArray[Any], costs: Figures) -> Figures:
    """Figures of one model by name."""
    found = score_rows(test["label"].to_numpy(), scores)
    told = {figure: found[figure] for figure in ("log_loss", "auc", "calibration_error", "mean_score", "base_rate")}
    return {f"{name}_{figure}": value for figure, value in (told | costs).items()}


def children_cpu_seconds() -> float:
    """Of all processes this one started that have ended, and theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def summary(found: Mapping[int, Figures]) -> Figures:
    """Means over the months, and Evergreen beside each peer."""
    names = sorted(set.intersection(*(set(figures) for figures in found.values())))
    means = {f"mean_{name}": float(np.mean([figures[name] for figures in found.values()])) for name in names}
    for peer in ("lightgbm", "logistic"):
        pairs = [(figures["evergreen_log_loss"], figures[f"{peer}_log_loss"]) for figures in found.values()]
        means[f"log_loss_ratio_to_{peer}"] = means["mean_evergreen_log_loss"] / means[f"mean_{peer}_log_loss"]
        means[f"months_better_than_{peer}"] = float(sum(mine < theirs for mine, theirs in pairs))
    means["longest_wall_seconds"] = max(figures["evergreen_wall_seconds"] for figures in found.values())
    return means | {"months": float(len(found))}


def report(found: Mapping[int, Figures]) -> None:
    """Print the months and their mean, and record all figures."""
    means = summary(found)
    table = Table(title="log loss · AUC · CPU seconds of training, on the month after")
    for column in ("learnt up to", "rows", *NAMES.values(), "Evergreen's wall s"):
        table.add_column(column, justify="right")
    lines = {f"end of {datetime(2013, month, 1, tzinfo=UTC):%B}": figures for month, figures in found.items()}
    lines["mean"] = {name.removeprefix("mean_"): value for name, value in means.items() if name.startswith("mean_")}
    for line, told in lines.items():
        best = min(NAMES, key=lambda name: told[f"{name}_log_loss"])
        cells = [
            f"{'[bold]' * (name == best)}{told[f'{name}_log_loss']:.4f}{'[/]' * (name == best)} · "
            f"{told[f'{name}_auc']:.3f} · {told[f'{name}_cpu_seconds']:.0f}"
            for name in NAMES
        ]
        table.add_row(line, f"{told['training_rows']:,.0f}", *cells, f"{told['evergreen_wall_seconds']:.0f}")
    console = Console()
    console.print(table)
    console.print(
        f"Evergreen's mean log loss is {means['log_loss_ratio_to_lightgbm']:.4f} times LightGBM's and it is better in "
        f"{means['months_better_than_lightgbm']:.0f} of {len(found)} months; {means['log_loss_ratio_to_logistic']:.4f} times "
        f"logistic regression's, better in {means['months_better_than_logistic']:.0f}."
    )
    figures = {f"month_{month}_{name}": value for month, told in found.items() for name, value in told.items()} | means
    packages = ("torch", "lightgbm", "scikit-learn", "numpy")
    console.print(f"written to {record('quality', figures, packages).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
