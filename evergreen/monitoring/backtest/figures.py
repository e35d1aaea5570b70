"""What policies came to over history: losses, shares of what weekly retraining gains, and how often they alarm for nothing.

On copies of history whose days are shuffled nothing drifts by construction, so whatever alarms there is a false alarm.
Pure. Called by `tasks/backtest.py`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from evergreen.figures import roc_auc
from evergreen.monitoring.backtest.play import Asked, History, Moment, Played, play
from evergreen.monitoring.backtest.policies import by_spec, unmoved
from evergreen.spec import ModelSpec
from evergreen.types import Cause, DriftReport, Remedy


@dataclass(frozen=True)
class Result:
    """What one policy came to."""

    name: str
    log_loss: float
    auc: float
    retrains: tuple[int, ...]
    fine_tunes: int
    recalibrations: int
    alarms: tuple[int, ...]
    gain_share: float
    """Of the gain that weekly retraining has over never retraining."""
    regret: float
    """Log loss above that of weekly retraining."""
    seconds: float
    """CPU time of all trainings, fine-tunes among them, had only this policy run."""
    curve: tuple[float, ...] = field(default=())
    """(weeks,) log loss; 0 in one in which nobody asked."""


Seconds = Callable[[int, tuple[int, ...]], float]
"""CPU time that the last step to a model took: its retrain, or its newest fine-tune."""


def results(played: Mapping[str, tuple[History, Played, Seconds]]) -> list[Result]:
    """Figures of each policy, over histories that differ in nothing but models; needs policies `never` and `weekly`."""
    curves = {name: _curve(history, one) for name, (history, one, _) in played.items()}
    worst, best = curves["never"].sum(), curves["weekly"].sum()
    found = []
    for name, (history, one, seconds) in played.items():
        rows, total = history.rows, curves[name].sum()
        found.append(
            Result(
                name=name,
                log_loss=float(total / rows.sum()),
                auc=_auc(history, one),
                retrains=one.retrains,
                fine_tunes=len(one.at(Remedy.FINE_TUNE)),
                recalibrations=len(one.at(Remedy.RECALIBRATE)),
                alarms=one.alarms,
                gain_share=float((worst - total) / (worst - best)),
                regret=float((total - best) / rows.sum()),
                seconds=sum(seconds(*made) for made in sorted({(v.slot, v.tuned) for v in one.versions})),
                curve=tuple((curves[name] / np.maximum(rows, 1)).tolist()),
            )
        )
    return found


def random_gains(
    losses: NDArray[np.float64], retrains: int, draws: int, seed: int, bounds: tuple[float, float], every: int = 1
) -> NDArray[np.float64]:
    """(draws,) share of weekly retraining's gain of as many retrains in weeks that are drawn out of each `every`-th one.

    `losses` (weeks, weeks): of a retrain at a slot in each week from its own on. `bounds` are the summed losses of never and of
    weekly retraining.
    """
    weeks = losses.shape[1]
    random = np.random.default_rng(seed)
    slots = np.arange(every, weeks, every)
    worst, best = bounds
    gains = []
    for _ in range(draws):
        chosen = np.sort(random.choice(slots, size=min(retrains, len(slots)), replace=False))
        champions = np.concatenate([[0], chosen])[np.searchsorted(chosen, np.arange(weeks), side="right")]
        gains.append((worst - losses[champions, np.arange(weeks)].sum()) / (worst - best))
    return np.array(gains)


@dataclass(frozen=True)
class FalseAlarms:
    """Of a spec's rules over shuffled copies in which nothing is done."""

    alarms: int
    weeks: int
    """In which they were possible."""
    by_rule: Mapping[str, int]
    """Weeks in which each rule alarmed, for nothing; one that never did is not named."""

    @classmethod
    def of(cls, parts: Sequence["FalseAlarms"]) -> "FalseAlarms":
        """Several together."""
        rules: Counter[str] = Counter()
        for part in parts:
            rules.update(part.by_rule)
        return cls(sum(part.alarms for part in parts), sum(part.weeks for part in parts), dict(sorted(rules.items())))


def false_alarms(
    copies: Sequence[History], spec: ModelSpec, drift: Callable[[Moment], DriftReport | None] = unmoved
) -> FalseAlarms:
    """Count them; rules of the calendar (age, volume) see nothing and are no alarms. `drift` is of the copies' rows."""
    ask = by_spec(spec, drift=drift)
    alarms = weeks = 0
    rules: Counter[str] = Counter()

    def counted(moment: Moment) -> Asked:
        answer = ask(moment)
        seen = answer.check.alarms if answer.check is not None else ()
        rules.update({alarm.rule for alarm in seen if alarm.trigger not in (Cause.AGE, Cause.VOLUME)})
        return replace(answer, remedy=None)

    for history in copies:
        played = play(history, counted)
        alarms, weeks = alarms + len(played.alarms), weeks + history.weeks - 1
    return FalseAlarms(alarms, weeks, dict(rules))


def upper_share(seen: int, of: int, confidence: float = 0.95) -> float:
    """A share is below this with one-sided `confidence` (Clopper & Pearson 1934)."""
    return 1.0 if seen >= of else float(beta.ppf(confidence, seen + 1, of - seen))


def lower_share(seen: int, of: int, confidence: float = 0.95) -> float:
    """A share is above this with one-sided `confidence`; see `upper_share`."""
    return 0.0 if seen <= 0 else float(beta.ppf(1 - confidence, seen, of - seen + 1))


def shuffled_days(moments: NDArray[np.datetime64], seed: int) -> NDArray[np.timedelta64]:
    """(rows,) how far each row moves when the days between the first and the last are dealt out anew, each day whole."""
    days, place = np.unique(moments.astype("datetime64[D]"), return_inverse=True)
    dealt = np.random.default_rng(seed).permutation(days)
    moved: NDArray[np.timedelta64] = (dealt - days)[place]
    return moved


def _curve(history: History, played: Played) -> NDArray[np.float64]:
    """(weeks,) summed log loss."""
    return np.array([history.loss(version, week) for week, version in enumerate(played.versions)])


def _auc(history: History, played: Played) -> float:
    served, labels = [], []
    for week, version in enumerate(played.versions):
        rows = history.place == week
        served.append(history.scores(version, week + 1)[rows])
        labels.append(history.labels[rows])
    return roc_auc(np.concatenate(labels), np.concatenate(served))
