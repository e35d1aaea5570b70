"""Optimised variants beside the network as it is served: `python -m bench.variants`.

The flights' own model of `bench.serving`, run each way that `evergreen/training/network/variants.py` knows: what it costs
on one thread from one row's numbers to its answer, and from those of `TOGETHER` (rounds alternate, the best counts), how
far its answers on held-out rows move, how long it takes to make, and what `flows/optimise.py` would say of it: the whole
gate beside its parent, and their comparison. Writes `reports/bench/variants.json`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from bench.record import record
from bench.serving.installation import MODEL, installations
from evergreen.adapters.feature_tables import load_training_set
from evergreen.gate import decide
from evergreen.settings import ROOT
from evergreen.training.artifact import read_artifact, write_artifact
from evergreen.training.network.variants import VARIANTS
from evergreen.training.predictor import Predictor, as_variant_of
from evergreen.types import GateDecision, TrainedModel
from tasks.gate import evaluate_artifact, measure
from tasks.optimise import compare

TOGETHER = 32
COMPARED_ROWS = 2_000
ROUNDS, CALLS = 15, 100


def main() -> None:
    """Make each variant, measure all in turns and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".evergreen" / "bench")
    home = parser.parse_args().home.absolute()
    spec = installations(home)["sqlite"].wiring.spec(MODEL)
    model = TrainedModel.model_validate_json((home / "serving" / "model.json").read_text())
    parent = evaluate_artifact(spec, model.uri, model.digest, model.training_set)
    files = read_artifact(Path(model.uri), model.digest)
    held_out = load_training_set(model.training_set).tail(COMPARED_ROWS)
    figures: dict[str, float] = {}
    verdicts: dict[str, str] = {"plain": "the parent"}
    made = {"plain": Predictor.load(model.uri, model.digest)}
    for name, way in VARIANTS.items():
        if name == "plain":
            continue
        if (why := way.absent()) is not None:
            verdicts[name] = f"not made: {why}"
            continue
        folder, began = home / "variants" / name, time.perf_counter()
        digest = write_artifact(folder, as_variant_of(files, name))
        figures[f"{name}_making_s"] = time.perf_counter() - began
        made[name] = Predictor.load(folder, digest)
        variant = model.model_copy(update={"uri": str(folder), "digest": digest})
        judged = decide(
            evaluate_artifact(spec, str(folder), digest, model.training_set),
            parent, spec.gate, footprint=measure.fn(variant, model.training_set),
        )  # fmt: skip
        checks = (*judged.checks, *compare(model.uri, str(folder), model.training_set, name))
        verdicts[name] = "; ".join(GateDecision(checks=checks).reasons) or "passes"
    said = {
        name: one.score({column: held_out[column].to_numpy() for column in one.inputs}) for name, one in made.items()
    }
    for name, scores in said.items():
        figures[f"{name}_moves"] = float(np.abs(scores - said["plain"]).max())
    for rows in (1, TOGETHER):
        for name, seconds in timed(made, held_out, rows).items():
            figures[f"{name}_{rows}_us"] = 1e6 * seconds
    report(figures, verdicts)


def timed(made: dict[str, Predictor], held_out: pd.DataFrame, rows: int) -> dict[str, float]:
    """Seconds of the thread from so many encoded rows to their answers: the best round of each."""
    some = {column: held_out[column].to_numpy()[:rows] for column in made["plain"].inputs}
    encoded = made["plain"]._encoder.encode_cells(some)
    best = dict.fromkeys(made, float("inf"))
    for _ in range(ROUNDS):
        for name, predictor in made.items():
            began = time.thread_time()
            for _ in range(CALLS):
                predictor._said(encoded)
            best[name] = min(best[name], (time.thread_time() - began) / CALLS)
    return best


def report(figures: dict[str, float], verdicts: dict[str, str]) -> None:
    """Print a table and write the figures."""
    table = Table("variant", "1 row, µs", f"{TOGETHER} rows, µs", "answers move by", "made in s", "the gate")
    for name, verdict in verdicts.items():
        cells = [figures.get(f"{name}_{kind}") for kind in ("1_us", f"{TOGETHER}_us", "moves", "making_s")]
        table.add_row(name, *("" if one is None else f"{one:.3g}" for one in cells), verdict)
    console = Console()
    console.print(table)
    console.print(f"written to {record('variants', figures, ['torch', 'onnxruntime'], note=str(verdicts))}")


if __name__ == "__main__":
    main()
