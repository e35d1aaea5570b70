"""Is a retraining policy any good? Played over history before it is switched on: `make backtest`.

Trains a cheap model a week of the span and one a shuffled copy, keeps them under EVERGREEN_HOME, and goes on where it was
stopped.
"""

import argparse
import os
from datetime import UTC, datetime

from prefect import flow

from evergreen.monitoring.backtest.report import BacktestReport
from evergreen.training.rehearsal import Stage
from evergreen.wiring import wiring
from tasks.backtest import fit_thresholds, play_policies, rehearse_history, show_backtest
from tasks.features import refresh_features
from tasks.moment import moment
from tasks.rehearsal import playable

MODEL, FIRST, END = "flight_delay", datetime(2013, 4, 1, tzinfo=UTC), datetime(2013, 12, 30, tzinfo=UTC)


@flow(flow_run_name="backtest-{model}")
def backtest(
    model: str = MODEL,
    first: datetime = FIRST,
    end: datetime = END,
    workers: int | None = None,
) -> BacktestReport:
    """Play policies from `first` to `end`; thresholds are fitted on what is before `first`.

    Args:
        model: Name of a file in `models/`.
        first: The first model is trained on what is before it; a policy is asked each window from then on.
        end: The last window ends by then.
        workers: Models that train at a time; empty means one a core.
    """
    spec = playable(wiring().spec(model))
    refresh_features(spec, moment(end))
    workers = workers or os.cpu_count() or 1
    with Stage(workers) as stage:
        rehearsal = rehearse_history(spec, moment(first), moment(end), stage, workers)
        fitted = fit_thresholds(rehearsal)
        report = play_policies(rehearsal, fitted)
    show_backtest(report, fitted)
    return report


def asked() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="python -m flows.backtest", description=__doc__.split("\n")[0])
    parser.add_argument("model", nargs="?", default=MODEL, help="name of a file in models/")
    for name, default in (("--first", FIRST), ("--end", END)):
        parser.add_argument(name, type=datetime.fromisoformat, default=default, metavar="YYYY-MM-DD")
    return parser.parse_args()


if __name__ == "__main__":
    backtest(**vars(asked()))
