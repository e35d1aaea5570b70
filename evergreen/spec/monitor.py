"""`[monitor]`, `[retrain]` and `[backtest]`: what is watched, and when it starts a retrain."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from evergreen.spec.table import Table
from evergreen.types import Share


class MonitorConfig(Table):
    """When has it rotted? The `[monitor]` table."""

    window_days: PositiveInt = 7
    min_label_share: Share = 0.8
    """Labelled figures of a window wait until this share of its outcomes is in."""
    min_labels: PositiveInt = 500
    """and until there are this many."""
    max_calibration_gap: PositiveFloat = 0.06
    """Alarm when the mean score is further than this from the share that came true: of more than two classes, for any of
    them; in a regression from the mean label, in standard deviations of the window's labels."""
    max_log_loss_rise: PositiveFloat | None = None
    """Alarm when the log loss is this much above the champion's own at its gate; in a regression, the squared error by this
    share of it. Unset: shown and starts nothing, since a log loss also rises and falls with the share of ones."""
    max_age_days: PositiveInt = 56
    """Alarm when the champion's newest training row is older than this."""
    max_estimated_rise: PositiveFloat | None = None
    """Alarm when the log loss that is estimated without the window's outcomes is above the champion's own at its gate by this,
    lower bound of its interval included. Unset: shown and starts nothing."""
    max_unlearnt_share: PositiveFloat | None = None
    """Alarm when the outcomes that came in since the champion's network was trained are this share of those it learnt from:
    data enough that a new one would know much more. Unset: not counted."""
    max_drift_share: Share | None = None
    """Alarm when more than this share of the features drifts. Unset: drift is shown and starts nothing, until `make backtest`
    has said how often it would alarm for nothing."""
    block_days: PositiveInt = 1
    """Days that are exchanged together when it is asked whether a distance is more than chance. Longer where days resemble
    their neighbours; with few blocks nothing can be told."""
    drift_level: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Share of false discoveries among the features that are said to have drifted."""
    min_probe_gain: NonNegativeFloat | None = None
    """Alarm when the champion's scores, recalibrated on the windows before, would have had a log loss lower by this in the
    window, with `probe_confidence`: what a fresh model would gain at least. Unset: shown and starts nothing."""
    probe_confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of that gain and the next, one-sided, days being the sample."""
    challenger: Literal["fine_tune", "retrain"] | None = None
    """At each check, have a model learn what was known when the window began and hold it beside the champion in the window:
    the champion tuned further, nearly free; or a cheap network of `[backtest]`'s beside another that knows what the champion's
    last retrain knew, which tells what fresh rows bring whatever the champion's size. Unset: none is made."""
    min_challenger_gain: NonNegativeFloat | None = None
    """Alarm when its mean loss is lower by this, with `probe_confidence`: what a retrain has to be worth. Unset: shown and
    starts nothing, until `make backtest` has said how often it would alarm for nothing."""
    persistence: PositiveInt = 1
    """Windows that must alarm before a retrain is asked for, the newest among them,"""
    persistence_of: PositiveInt | None = None
    """out of this many newest ones. Unset: as many as `persistence`, which makes them windows in a row."""
    figure_rows: PositiveInt = 200_000
    """Figures of a window, their intervals and the estimate are of so many of its answers at most, the same share of each
    day's, and calibrated on as many earlier ones: a check costs the same whatever the traffic."""
    report_rows: PositiveInt = 2_000
    """Rows a side that are drawn for the Evidently report."""
    evidently_runs: NonNegativeInt = 12
    """Windows that are kept for Evidently's own UI (`make evidently`), some MB each; 0 keeps none."""

    @model_validator(mode="after")
    def _challenged(self) -> Self:
        if self.min_challenger_gain is not None and self.challenger is None:
            raise ValueError('min_challenger_gain needs a challenger: "fine_tune" or "retrain"')
        return self

    @model_validator(mode="after")
    def _persistent(self) -> Self:
        if self.persistence_of is not None and self.persistence_of < self.persistence:
            raise ValueError(
                f"persistence_of is {self.persistence_of}, but persistence asks for {self.persistence} windows among them"
            )
        return self


class RetrainConfig(Table):
    """How often may it be retrained? The `[retrain]` table."""

    cooldown_days: NonNegativeFloat = 14
    """Between two retrains that alarms asked for; persons and schedules are not held back."""
    max_in_30_days: PositiveInt | None = None
    """Finished retrains in the 30 days before an ask, whoever asked for them, after which alarms and schedules must wait.
    Cheaper remedies are not counted and do not wait for it."""
    max_device_hours_in_30_days: PositiveFloat | None = None
    """Hours of CPUs or GPUs that remedies of every kind may have used in the 30 days before an ask; beyond it alarms and
    schedules must wait."""


class InjectedFault(Table):
    """How is data broken on purpose, to see whether it is noticed? An entry of `[[backtest.faults]]`."""

    kind: Literal["unit", "missing", "late", "renamed"]
    column: str
    """A feature; of `late`, a feature table."""
    scale: float = 1.0
    """`unit`: the values times this,"""
    offset: float = 0.0
    """plus this."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2
    """`missing`: of the rows, drawn at random."""
    hours: PositiveFloat = 24.0
    """`late`: what became known in so many hours before a look has not come."""
    category: str | None = None
    """`renamed`: this one comes"""
    becomes: str | None = None
    """under this name."""

    @property
    def name(self) -> str:
        """In words."""
        how = {
            "unit": f"times {self.scale:.3g} plus {self.offset:.3g}",
            "missing": f"{self.share:.0%} missing",
            "late": f"{self.hours:g} hours late",
            "renamed": f"{self.category} renamed {self.becomes}",
        }
        return f"{self.column}: {how[self.kind]}"

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        used = {
            "unit": {"scale", "offset"},
            "missing": {"share"},
            "late": {"hours"},
            "renamed": {"category", "becomes"},
        }
        fields = type(self).model_fields
        others = set(fields) - {"kind", "column"} - used[self.kind]
        idle = {name for name in others if getattr(self, name) != fields[name].default}
        if idle:
            raise ValueError(f"{', '.join(sorted(idle))}: no use to kind {self.kind!r}; take it out")
        if self.kind == "renamed" and (self.category is None or self.becomes is None):
            raise ValueError("renamed needs category and becomes")
        if self.kind == "unit" and (self.scale, self.offset) == (1.0, 0.0):
            raise ValueError("unit needs scale or offset: as it stands nothing is changed")
        return self


class BacktestConfig(Table):
    """How is a policy tried on history? The `[backtest]` table."""

    epochs: PositiveInt = 1
    """A backtest trains a model a week of history, so each is cheaper than `[train]` asks for: one member, one rank,"""
    hidden: tuple[PositiveInt, ...] = (64,)
    """a smaller network,"""
    batch_size: PositiveInt = 1024
    """and no auxiliary label."""
    copies: PositiveInt = 20
    """Of history with shuffled days, in which every alarm is false."""
    weeks_per_false_alarm: PositiveInt = 26
    """The alarm budget: in so many windows at most one, upper bound of the interval included."""
    max_retrain_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    """The retrain budget: this share of the windows may end in one."""
    faults: tuple[InjectedFault, ...] = ()
    """Put into windows of history; each must be noticed at the first look, and nothing may be learnt from them."""
    seed: int = 0
    """Of the shuffles and of random policies."""
