"""Thresholds for a model's file, fitted on a part of history that no reported figure uses.

The routine is the cheapest remedy that, done at every check of that part, brings most of what the best one brings; of
fine-tunes those over more rows are tried too. The rate a fine-tune learns at is the file's and not fitted: a young model
gains by a high one, and what that forgets shows after a short span has ended. The gain that a probe, and a challenger where
the file asks for one, must show is the smallest whose false alarms keep the alarm budget on shuffled copies. The age makes
the calendar's own share of retrains the retrain budget's. Pure. Called by `tasks/plays.py`.
"""

from collections.abc import Sequence
from typing import Any

from evergreen.monitoring.backtest.figures import false_alarms, upper_share
from evergreen.monitoring.backtest.play import History
from evergreen.spec import ModelSpec
from evergreen.types import Remedy

ENOUGH = 0.9
"""A cheaper routine with this share of the best one's gain is taken."""
UNFITTED = ("max_log_loss_rise", "max_estimated_rise", "max_drift_share", "max_unlearnt_share")
"""Alarms that a file may ask for by a threshold of its own: a fitted spec does without, since they take from the alarm budget."""
MONITOR_KEYS = ("max_calibration_gap", "min_probe_gain", "min_challenger_gain", "max_age_days", *UNFITTED)
REMEDY_KEYS = ("routine", "tune_days", "tune_epochs")


def routines(spec: ModelSpec) -> tuple[ModelSpec, ...]:
    """The spec with each routine to try, the cheapest first; the first has none.

    A fine-tune is tried as the file has it, twice over its days, over twice as many days, and with both.
    """
    days, epochs = spec.remedy.tune_days, spec.remedy.tune_epochs
    tuned = ((days, epochs), (days, 2 * epochs), (2 * days, epochs), (2 * days, 2 * epochs))
    tried: tuple[dict[str, Any], ...] = (
        {"routine": None},
        {"routine": Remedy.RECALIBRATE},
        *({"routine": Remedy.FINE_TUNE, "tune_days": over, "tune_epochs": times} for over, times in tuned),
    )
    return tuple(spec.model_copy(update={"remedy": spec.remedy.model_copy(update=keys)}) for keys in tried)


def cheapest_enough(tried: Sequence[tuple[ModelSpec, float]]) -> ModelSpec:
    """Of specs with the loss of each, in the order of `routines`, the first that gains most of what the best one gains."""
    losses = [loss for _, loss in tried]
    best = losses[0] - min(losses)
    return next(spec for spec, loss in tried if losses[0] - loss >= ENOUGH * best)


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
        **dict.fromkeys(UNFITTED),
        "max_calibration_gap": 1.0,
        "min_probe_gain": None,
        "min_challenger_gain": None,
        "max_age_days": weeks * spec.monitor.window_days,
    }
    found = spec.model_copy(update={"monitor": spec.monitor.model_copy(update=calm), "remedy": remedy})
    keys = ("min_probe_gain", *(["min_challenger_gain"] if spec.monitor.challenger else []))
    for key in keys:
        for gain in sorted(gains):
            tried_one = found.model_copy(update={"monitor": found.monitor.model_copy(update={key: gain})})
            false = false_alarms(copies, tried_one)
            if upper_share(false.alarms, false.weeks) <= 1 / config.weeks_per_false_alarm:
                found = tried_one
                break
    return found
