"""Thresholds for a model's file, fitted on a part of history that no reported figure uses.

The routine is the cheapest remedy that, done at every check of that part, brings most of what the best one brings. The
probe's gain is the smallest whose false alarms keep the alarm budget on shuffled copies. The age makes the calendar's own
share of retrains the retrain budget's. Pure. Called by `tasks/backtest.py`.
"""

from collections.abc import Sequence
from typing import Any

from evergreen.monitoring.backtest import History
from evergreen.monitoring.backtest_figures import false_alarms, upper_share
from evergreen.spec import ModelSpec
from evergreen.types import Remedy

RATE_SHARES = (0.3, 0.1, 0.03)
"""Of `[train].learning_rate`, that a fine-tune is tried at."""
ENOUGH = 0.9
"""A cheaper routine with this share of the best one's gain is taken."""
MONITOR_KEYS = ("max_calibration_gap", "min_probe_gain", "max_age_days")
REMEDY_KEYS = ("routine", "tune_rate_share")


def routines(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    """The spec with each routine to try, the cheapest first; the first has none."""
    tried: list[dict[str, Any]] = [{"routine": None}, {"routine": Remedy.RECALIBRATE}]
    tried += [{"routine": Remedy.FINE_TUNE, "tune_rate_share": share} for share in RATE_SHARES]
    return tuple(spec.model_copy(update={"remedy": spec.remedy.model_copy(update=one)}) for one in tried)


def cheapest_enough(tried: Sequence[tuple[ModelSpec, float]]) -> ModelSpec:
    """Of specs with the loss of each, in the order of `routines`, the first that gains most of what the best one gains."""
    losses = [loss for _, loss in tried]
    best = losses[0] - min(losses)
    kinds: dict[Remedy | None, tuple[ModelSpec, float]] = {}
    for spec, loss in tried:
        kind = spec.remedy.routine
        if kind not in kinds or loss < kinds[kind][1]:
            kinds[kind] = (spec, loss)
    return next(spec for spec, loss in kinds.values() if losses[0] - loss >= ENOUGH * best)


def fitted_spec(
    spec: ModelSpec, tried: Sequence[tuple[ModelSpec, float]], copies: Sequence[History], gains: Sequence[float]
) -> ModelSpec:
    """The spec with fitted `[monitor]` and `[remedy]`; `tried` are `routines` with the loss of each over the fitting part.

    `copies` are shuffled copies of that part. The upper bound of the false-alarm rate must be within the budget; where no
    probe gain is, alarms are left to the age alone.
    """
    config, remedy = spec.backtest, cheapest_enough(tried).remedy
    weeks = int(-(-1 / config.max_retrain_share // 1))
    calm = {
        "max_calibration_gap": 1.0,
        "max_log_loss_rise": None,
        "max_drift_share": None,
        "min_probe_gain": None,
        "max_age_days": weeks * spec.monitor.window_days,
    }
    plain = spec.model_copy(update={"monitor": spec.monitor.model_copy(update=calm), "remedy": remedy})
    for gain in sorted(gains):
        tried_one = plain.model_copy(update={"monitor": plain.monitor.model_copy(update={"min_probe_gain": gain})})
        if upper_share(*false_alarms(copies, tried_one)) <= 1 / config.weeks_per_false_alarm:
            return tried_one
    return plain
