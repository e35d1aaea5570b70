"""Half a year of a shop's subscribers, of whom some cancel: another domain than the flights', with a drift that is known.

In week 12 the basic plan gets dearer: until then it keeps its subscribers, afterwards it loses them. All else stays.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from evergreen.adapters.feature_tables import content_digest
from evergreen.spec import ModelSpec, parse_spec
from evergreen.types import TrainingSet, Window

START = datetime(2021, 1, 4, tzinfo=UTC)
WEEKS = 20
DEARER = 12
ROWS_A_DAY = 150


def shop_spec(**backtest: object) -> ModelSpec:
    """Small enough that a model of a week trains in a second."""
    quick = {"epochs": 3, "hidden": [8], "batch_size": 128, "copies": 3, "weeks_per_false_alarm": 4}
    return parse_spec(
        {
            "model": {"name": "churn"},
            "data": {
                "domain": "shop", "examples": "customers", "event_time": "asked_at", "labels": "cancellations",
                "label": "cancelled", "feature_service": "churn",
            },
            "train": {"learning_rate": 1e-2, "seed": 5},
            "monitor": {"min_labels": 300},
            "backtest": quick | backtest,
        }
    )  # fmt: skip


def shop_history(folder: Path) -> TrainingSet:
    """Written as a snapshot that `load_training_set` believes."""
    draw = np.random.default_rng(11)
    days = WEEKS * 7
    day = np.repeat(np.arange(days), ROWS_A_DAY)
    moments = pd.Timestamp(START) + pd.to_timedelta(day * 24 * 60 + np.tile(np.arange(ROWS_A_DAY) * 9, days), "min")
    visits, basket = draw.poisson(4.0, len(day)).astype(float), draw.gamma(2.0, 20.0, len(day))
    plan = draw.choice(["basic", "plus", "family"], len(day), p=[0.5, 0.3, 0.2])
    effect = np.where(plan == "basic", np.where(day >= DEARER * 7, 1.5, -1.0), 0.0)
    odds = -0.5 - 0.25 * (visits - 4) + effect + draw.normal(0, 0.2, days)[day]
    rows = pd.DataFrame(
        {
            "example_id": [f"c{n:06d}" for n in range(len(day))],
            "event_timestamp": pd.Series(moments).astype("datetime64[us, UTC]"),
            "label": (draw.random(len(day)) < 1 / (1 + np.exp(-odds))).astype(float),
            "label_timestamp": pd.Series(moments + pd.to_timedelta(draw.uniform(2, 48, len(day)), "h")).astype(
                "datetime64[us, UTC]"
            ),
            "visits": visits,
            "basket": basket,
            "plan": plan,
        }
    )
    path, end = folder / "shop.parquet", START + timedelta(days=days)
    rows.to_parquet(path, index=False, coerce_timestamps="us")
    rows = pd.read_parquet(path)
    return TrainingSet(
        uri=str(path),
        digest=content_digest(rows),
        model="churn",
        feature_service="churn",
        as_of=end,
        window=Window(start=START, end=end),
        holdout=Window(start=end - timedelta(days=7), end=end),
        rows=len(rows),
        holdout_rows=7 * ROWS_A_DAY,
        features={"visits": "numeric", "basket": "numeric", "plan": "categorical"},
    )
