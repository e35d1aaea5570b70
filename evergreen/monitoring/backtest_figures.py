"""What policies came to over history: losses, shares of what weekly retraining gains, and how often they alarm for nothing.

On copies of history whose days are shuffled nothing drifts by construction, so whatever alarms there is a false alarm.
Thresholds are fitted to copies of one part of history and judged on another. Pure. Called by `tasks/backtest.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from evergreen.figures import roc_auc
from evergreen.monitoring.backtest import History, Played, by_spec, play
from evergreen.spec import ModelSpec


@dataclass(frozen=True)
class Result:
    """What one policy came to."""

    name: str
    log_loss: float
    auc: float
    retrains: tuple[int, ...]
    alarms: tuple[int, ...]
    gain_share: float
    """Of the gain that weekly retraining has over never retraining."""
    regret: float
    """Log loss above that of weekly retraining."""
    seconds: float
    """Of training, had only this policy run."""
    curve: tuple[float, ...] = field(default=())
    """(weeks,) log loss."""


def results(
    history: History, played: dict[str, Played], losses: NDArray[np.float64], seconds: Sequence[float]
) -> list[Result]:
    """Figures of each policy; `losses` (slots, weeks) as `History.losses`, `seconds` (slots,) a model took; needs
    policies `never` and `weekly`."""
    totals = {name: _total(one, losses) for name, one in played.items()}
    rows, worst, best = history.rows.sum(), totals["never"], totals["weekly"]
    found = []
    for name, one in played.items():
        weeks = np.arange(history.weeks)
        curve = losses[np.array(one.champions), weeks] / history.rows
        found.append(
            Result(
                name=name,
                log_loss=float(totals[name] / rows),
                auc=_auc(history, one),
                retrains=one.retrains,
                alarms=one.alarms,
                gain_share=float((worst - totals[name]) / (worst - best)),
                regret=float((totals[name] - best) / rows),
                seconds=float(sum(seconds[slot] for slot in (0, *one.retrains))),
                curve=tuple(curve.tolist()),
            )
        )
    return found


def random_gains(losses: NDArray[np.float64], retrains: int, draws: int, seed: int) -> NDArray[np.float64]:
    """(draws,) share of weekly retraining's gain of as many retrains in weeks that are drawn."""
    weeks = losses.shape[1]
    random = np.random.default_rng(seed)
    worst, best = losses[0].sum(), losses[np.arange(weeks), np.arange(weeks)].sum()
    gains = []
    for _ in range(draws):
        chosen = np.sort(random.choice(np.arange(1, weeks), size=retrains, replace=False))
        champions = np.concatenate([[0], chosen])[np.searchsorted(chosen, np.arange(weeks), side="right")]
        gains.append((worst - losses[champions, np.arange(weeks)].sum()) / (worst - best))
    return np.array(gains)


def false_alarms(copies: Sequence[History], spec: ModelSpec) -> tuple[int, int]:
    """Alarms, and weeks they were possible in, of the spec's rules over shuffled copies in which nothing is retrained."""
    ask = by_spec(spec)
    alarms = weeks = 0
    for history in copies:
        played = play(history, lambda moment: replace(ask(moment), retrain=False))
        alarms, weeks = alarms + len(played.alarms), weeks + history.weeks - 1
    return alarms, weeks


def upper_share(seen: int, of: int, confidence: float = 0.95) -> float:
    """A share is below this with one-sided `confidence` (Clopper & Pearson 1934)."""
    return 1.0 if seen >= of else float(beta.ppf(confidence, seen + 1, of - seen))


def fitted_spec(spec: ModelSpec, copies: Sequence[History], gains: Sequence[float]) -> ModelSpec:
    """The spec with the smallest probe gain whose false alarms keep the alarm budget, and the age the retrain budget asks for.

    `copies` are shuffled copies of a part of history that nothing is reported of. The upper bound of the false-alarm rate
    must be within the budget; where no gain is, alarms are left to the age alone. The age makes the calendar's own share of
    retrains the budget's.
    """
    config = spec.backtest
    weeks = -(-1 / config.max_retrain_share // 1)
    quiet = {"max_calibration_gap": 1.0, "max_log_loss_rise": None, "max_drift_share": None, "min_probe_gain": None}
    calm = {**quiet, "max_age_days": int(weeks) * spec.monitor.window_days}
    plain = spec.model_copy(update={"monitor": spec.monitor.model_copy(update=calm)})
    for gain in sorted(gains):
        tried = plain.model_copy(update={"monitor": plain.monitor.model_copy(update={"min_probe_gain": gain})})
        if upper_share(*false_alarms(copies, tried)) <= 1 / config.weeks_per_false_alarm:
            return tried
    return plain


def shuffled_days(moments: NDArray[np.datetime64], seed: int) -> NDArray[np.timedelta64]:
    """(rows,) how far each row moves when the days between the first and the last are dealt out anew, each day whole."""
    days, place = np.unique(moments.astype("datetime64[D]"), return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(days)
    moved: NDArray[np.timedelta64] = (dealt - days)[place]
    return moved


def _total(played: Played, losses: NDArray[np.float64]) -> float:
    return float(losses[np.array(played.champions), np.arange(losses.shape[1])].sum())


def _auc(history: History, played: Played) -> float:
    served, labels = [], []
    for week, slot in enumerate(played.champions):
        rows = history.place == week
        served.append(history.scores(slot)[rows])
        labels.append(history.labels[rows])
    return roc_auc(np.concatenate(labels), np.concatenate(served))
