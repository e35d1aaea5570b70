"""A million rows through a trained model, in bounded memory, beside the limit: `python -m bench.scoring`.

The limit is the network alone, on rows that are encoded and in memory; Evergreen reads the rows from a Parquet file, a
stretch at a time, encodes and scores them and writes the answers to another. Both have one thread and a process of their
own; the rounds alternate and the best counts. Memory is what a process adds to what it had before its first row: once for
the million and once for a tenth of it, since bounded means that the two are alike. Writes `reports/bench/scoring.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from bench.memory import begin_peak, peak_mib, resident_mib
from bench.record import record
from bench.snapshot import repeated, snapshot
from evergreen.settings import ROOT
from evergreen.spec import load_spec
from evergreen.training.data.label import Label
from evergreen.training.data.preprocessing import Column, Encoder
from evergreen.training.network.model import Rows
from evergreen.training.network.objective import answer
from evergreen.training.predictor import Predictor
from evergreen.training.run.job import TrainingJob
from evergreen.training.run.launch import train
from evergreen.types import TrainedModel

AS_OF = datetime(2013, 12, 31, tzinfo=UTC)
ROWS, STRETCH = 1_000_000, 1 << 16
Figures = dict[str, float]


def main() -> None:
    """Train a model once, then measure each side in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=ROWS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.home, arguments.rows)))
        return
    prepare(arguments.home)
    figures: Figures = {}
    for round_number in range(arguments.rounds):
        sides = [("limit", ROWS), ("evergreen", ROWS), ("evergreen", ROWS // 10)]
        for side, rows in sides if round_number % 2 == 0 else sides[::-1]:
            for name, value in in_process(side, rows, arguments.home).items():
                key = f"{side}_{rows}_{name}"
                figures[key] = min(value, figures.get(key, value))
    report(figures)


def in_process(side: str, rows: int, home: Path) -> Figures:
    """One side's figures."""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "bench.scoring",
        "--side",
        side,
        "--rows",
        str(rows),
        "--home",
        str(home),
    ]
    threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=os.environ | threads)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def prepare(home: Path) -> None:
    """A model of the spec's own shape, trained for one epoch, and the flights three times over as a file."""
    training_set = snapshot(home, AS_OF)
    spec = load_spec(ROOT / "models" / "flight_delay.toml")
    quick = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": 1})})
    job = TrainingJob(training_set=training_set, spec=quick, code_revision="bench", folder=str(home / "scoring"))
    (home / "scoring-model.json").write_text(train(job).model_dump_json())
    if not (home / "3x.parquet").is_file():
        repeated(training_set, 3, home)


def trained(home: Path) -> Predictor:
    """The model that `prepare` made."""
    model = TrainedModel.model_validate_json((home / "scoring-model.json").read_text())
    return Predictor.load(model.uri, model.digest)


def limit(home: Path, rows: int) -> Figures:
    """The network on rows that lie in memory as it takes them."""
    predictor = trained(home)
    few = next(stretches(home, predictor, STRETCH))
    encoded = Rows.of(Encoder(predictor.description.preprocessing).encode_cells(columns_of(few)))
    torch.set_num_threads(1)
    done, began = 0, time.process_time()
    while done < rows:
        answer(predictor._network, Label(), encoded)
        done += len(encoded.numeric)
    return {"us_per_row": 1e6 * (time.process_time() - began) / done}


def evergreen(home: Path, rows: int) -> Figures:
    """From file to file."""
    predictor = trained(home)
    begin_peak()
    before, began = resident_mib(), time.process_time()
    target, done = home / f"answers-{os.getpid()}.parquet", 0
    schema = pa.schema([("example_id", pa.string()), ("score", pa.float64())])
    with pq.ParquetWriter(target, schema) as writer:
        for batch in stretches(home, predictor, rows):
            scores = predictor.score(columns_of(batch))
            writer.write_table(pa.table([batch["example_id"].cast(pa.string()), pa.array(scores)], schema=schema))
            done += len(scores)
    seconds = time.process_time() - began
    written = pq.ParquetFile(target).metadata.num_rows
    target.unlink()
    assert written == done == rows
    return {"us_per_row": 1e6 * seconds / rows, "added_mib": peak_mib() - before}


SIDES: dict[str, Callable[[Path, int], Figures]] = {"limit": limit, "evergreen": evergreen}


def stretches(home: Path, predictor: Predictor, rows: int) -> Iterator[pa.RecordBatch]:
    """The first rows of the file, a stretch at a time."""
    left = rows
    for batch in pq.ParquetFile(home / "3x.parquet").iter_batches(STRETCH, columns=["example_id", *predictor.inputs]):
        yield batch.slice(0, left)
        left -= min(left, batch.num_rows)
        if not left:
            return


def columns_of(batch: pa.RecordBatch) -> dict[str, Column]:
    """Columns as a scorer takes them."""
    return {name: batch[name].to_numpy(zero_copy_only=False) for name in batch.schema.names}


def report(figures: Figures) -> None:
    """Print the table and write the figures."""
    ours, bare = figures[f"evergreen_{ROWS}_us_per_row"], figures[f"limit_{ROWS}_us_per_row"]
    figures["evergreen_over_limit"] = bare / ours
    table = Table("", "rows", "rows/s", "share of the limit", "adds MiB")
    table.add_row("the network alone", f"{ROWS:,}", f"{1e6 / bare:,.0f}", "1.00", "")
    for rows in (ROWS, ROWS // 10):
        each = figures[f"evergreen_{rows}_us_per_row"]
        table.add_row(
            "Evergreen, file to file", f"{rows:,}", f"{1e6 / each:,.0f}", f"{bare / each:.2f}",
            f"{figures[f'evergreen_{rows}_added_mib']:,.0f}",
        )  # fmt: skip
    Console().print(table)
    path = record("scoring", figures, ("torch", "numpy", "pyarrow"))
    Console().print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
