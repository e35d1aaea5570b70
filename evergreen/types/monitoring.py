"""What was answered, how it turned out, what has moved, and whether to retrain."""

from typing import Literal

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)

from evergreen.types.fact import Cause, Cell, Fact, Share, Utc, Window
from evergreen.types.gate import Scores
from evergreen.types.performance import DayPerformance, Interval, PerformanceEstimate, SlicePerformance
from evergreen.types.remedy import Remedy


class Prediction(Fact):
    """One answer that was given."""

    prediction_id: str
    model: str
    version: int
    role: Literal["champion", "challenger"]
    example_id: str
    event_timestamp: Utc
    """The moment whose knowledge the features are of."""
    answered_at: Utc
    """Wall clock."""
    score: float
    """Probability that the label is 1; of more than two classes, that of the most likely one; or the number predicted."""
    probabilities: dict[str, float] | None = None
    """By class, in the order of their numbers, of a multiclass model."""
    features: dict[str, Cell]
    stale: tuple[str, ...] = ()
    """Feature views whose values were missing or older than their TTL, and so not used."""
    latency_ms: NonNegativeFloat
    shadow_version: int | None = None
    """The other version of an open release, which scored the same row beside; nobody was told what it said."""
    shadow_score: float | None = None
    """None where it failed."""
    shadow_probabilities: dict[str, float] | None = None
    shadow_latency_ms: NonNegativeFloat | None = None
    routed_by: str | None = None
    """The entity that an A/B test gave this arm; None where none runs."""


class FeatureDrift(Fact):
    """One column of a drift report."""

    feature: str
    method: str
    score: float
    threshold: float
    drifted: bool


class Fault(Fact):
    """Data that broke, as told from a world that changed: it blocks retrains and starts none."""

    kind: Literal["missing", "stale", "unit", "vanished", "constant", "late"]
    column: str
    """Or the feature view or table."""
    since: Utc
    """The first bad hour."""
    figure: float
    limit: float
    reason: str


class FeatureShift(Fact):
    """How far one feature moved, and how often days alone move it as far."""

    feature: str
    distance: NonNegativeFloat
    """Jensen-Shannon, from 0 to 1, between the days of the window and those of the reference."""
    usual_distance: NonNegativeFloat
    """What it stays below, all but `level` of the time, where nothing drifts."""
    p_value: Share
    """Chance of such a distance if days could be exchanged."""
    adjusted_p_value: Share
    """Corrected for looking at all features."""
    season_adjusted_p_value: Share | None = None
    """The same beside the season of a year before; None where history has none."""
    drifted: bool


class DriftVerdict(Fact):
    """Which features drifted, with days as the unit: what decides, where Evidently's own verdict is only drawn."""

    days: PositiveInt
    reference_days: PositiveInt
    season: Window | None = None
    """Where the second reference lies, in the year before."""
    p_value: Share
    """That no feature at all moved."""
    level: Share
    """Share of false discoveries that is accepted."""
    block_days: PositiveInt
    permutations: PositiveInt
    seed: int
    features: tuple[FeatureShift, ...]

    @property
    def share(self) -> float:
        """Share of the features that drifted."""
        return sum(shift.drifted for shift in self.features) / max(len(self.features), 1)


class DriftReport(Fact):
    """Current inputs beside those the champion was trained on, one row a feature."""

    model: str
    window: Window
    reference: Window
    rows: NonNegativeInt
    reference_rows: NonNegativeInt
    features: tuple[FeatureDrift, ...]
    uri: str
    """The Evidently page."""
    verdict: DriftVerdict | None = None
    """The calibrated one, over all rows; `features` are Evidently's distances over a draw of them."""
    predictions: DriftVerdict | None = None
    """The same of the champion's scores, beside those it gave before the window; None while those are few."""

    @property
    def share(self) -> float:
        """Share of the features that drifted, by the calibrated verdict where there is one."""
        if self.verdict is not None:
            return self.verdict.share
        return sum(f.drifted for f in self.features) / max(len(self.features), 1)


class ProbeReport(Fact):
    """What the champion's scores, recalibrated on earlier outcomes, would have gained on days neither has seen."""

    slope: float
    intercept: float
    """The recalibrated log odds are `intercept + slope * log odds`."""
    fitted_rows: PositiveInt
    gain: float
    """Fall of the log loss of a row, paired by day."""
    gain_low: float
    """It is at least this, with `[monitor].probe_confidence`."""
    days: PositiveInt


class ChallengerReport(Fact):
    """What a model with newer knowledge would have gained in a window that neither it nor what it is held beside has seen."""

    kind: Literal["fine_tune", "retrain"]
    """The champion tuned further, beside the champion; or two cheap networks, of which one knows what the champion knows."""
    learnt_until: Utc
    """End of the newer one's rows."""
    rows: PositiveInt
    """Of the window, that both were judged on."""
    days: PositiveInt
    gain: float
    """Fall of the mean loss of a row, paired by day."""
    gain_low: float
    """It is at least this, with `[monitor].probe_confidence`."""
    cpu_seconds: NonNegativeFloat
    """What it took to know this."""


class PerformanceReport(Fact):
    """What served in a window beside what came true."""

    model: str
    version: int
    window: Window
    served: NonNegativeInt
    labelled: NonNegativeInt
    figured: NonNegativeInt = 0
    """Of those with an outcome, how many the figures are of: the same share of each day's where there are very many,"""
    seed: int = 0
    """drawn with this."""
    scores: Scores | None
    """None while too few labels are in."""
    calibration_gap: float | None = None
    """Mean score minus the share that came true, over the window; of other tasks see `evaluation.calibration_gap`."""
    days: NonNegativeInt = 0
    probe: ProbeReport | None = None
    """None while too few outcomes are in to make it."""
    intervals: dict[str, Interval] = {}
    """The loss, by its name among the figures, `calibration_gap`, and where the task has them `auc` and `accuracy`, with
    bounds by days; empty while `scores` is None, and so are the two that follow."""
    by_day: tuple[DayPerformance, ...] = ()
    """Oldest first."""
    slices: tuple[SlicePerformance, ...] = ()
    """Of the columns in `[data].slices`, the largest first."""
    estimate: PerformanceEstimate | None = None
    """The same figures found without the window's outcomes; of a regression not available."""

    @property
    def label_share(self) -> float:
        """Share of what was served that has its outcome."""
        return self.labelled / self.served if self.served else 0.0


class Alarm(Fact):
    """One trigger that fired, and why."""

    trigger: Cause
    figure: float
    rule: str
    reason: str


class RetrainDecision(Fact):
    """Is it time for a successor?"""

    model: str
    as_of: Utc
    retrain: bool
    alarms: tuple[Alarm, ...]
    reasons: tuple[str, ...]
    """Why, or why not."""
    episode: str | None = None
    """The stretch of drift this belongs to; None when nothing alarms."""
    remedy: Remedy = Remedy.RETRAIN
    """What is asked for, where something is."""
    routine: bool = False
    """It is asked for because it always is, not because of the alarms."""
    alarmed: bool = False
    """So many windows alarmed that something is to be done, be it the routine."""

    @property
    def cause(self) -> Cause:
        """Why it is asked for: the first alarm, or the routine."""
        return Cause.SCHEDULE if self.routine or not self.alarms else self.alarms[0].trigger


class WatchCheck(Fact):
    """One past look at a model: what it saw and what was decided, as later checks need it."""

    model: str
    version: int
    """The champion that was looked at."""
    window: Window
    alarms: tuple[Alarm, ...]
    retrain: bool
    episode: str | None = None
    report_uri: str | None = None
    """The Evidently page of the window."""
    remedy: Remedy = Remedy.RETRAIN
    """What was asked for, where `retrain` says that something was."""


class WatchRecord(Fact):
    """One past look with all it saw, for people to read."""

    check: WatchCheck
    as_of: Utc
    reasons: tuple[str, ...]
    performance: PerformanceReport
    drift: DriftReport | None


class RetrainRequest(Fact):
    """What became of one ask for a retrain."""

    request_id: str
    model: str
    cause: Cause
    episode: str
    as_of: Utc
    status: Literal["admitted", "suppressed", "done", "failed"]
    reason: str
    version: int | None = None
    remedy: Remedy = Remedy.RETRAIN
    device_seconds: NonNegativeFloat | None = None
    """What it used itself, so far while it runs: what others had trained before it costs it nothing. None: nothing yet."""
