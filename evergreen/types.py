"""The nouns that travel between steps.

Frozen, closed, finite, UTC. They carry URIs and digests, never frames, tensors or clients, so each of them survives a
process boundary, a Prefect result and an MLflow tag. Every decision carries its reasons.
"""

from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)


def _in_utc(moment: datetime) -> datetime:
    refusal = f"should be a moment between the years 1900 and 2200, not {moment.isoformat()}"
    try:
        moment = moment.astimezone(UTC)
    except OverflowError as error:  # in another zone the last day of year 9999 is in year 10000
        raise ValueError(refusal) from error
    if not 1900 <= moment.year <= 2200:  # the day before or after must be a date too, and count in nanoseconds
        raise ValueError(refusal)
    return moment


Utc = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Cell = float | str | None
"""One feature value as it travels: a number, a category, or missing."""
Task = Literal["binary", "multiclass", "regression"]
"""What a model predicts: the probability that its label is 1, a probability for each class, or a number."""


class LossName(NamedTuple):
    """How the loss of a task's rows is called."""

    figure: str
    """Its mean's name among the figures."""
    words: str


LOSS_NAMES: dict[Task, LossName] = {
    "binary": LossName("log_loss", "log loss"),
    "multiclass": LossName("log_loss", "log loss"),
    "regression": LossName("mse", "squared error"),
}


class Fact(BaseModel):
    """Base of every type here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Cause(StrEnum):
    """Why a retrain was asked for."""

    BOOTSTRAP = "bootstrap"
    SCHEDULE = "schedule"
    DRIFT = "drift"
    DECAY = "decay"
    AGE = "age"
    FAULT = "fault"
    """Never asks: alarms of this cause say that the data is broken, and hold retrains back."""
    PERSON = "person"


class Window(Fact):
    """`[start, end)` in UTC."""

    start: Utc
    end: Utc

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"window ends at {self.end.isoformat()}, not after its start {self.start.isoformat()}")
        return self

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%d %H:%M}, {self.end:%Y-%m-%d %H:%M})"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def length(self) -> timedelta:
        """From start to end."""
        return self.end - self.start


class TrainingSet(Fact):
    """A snapshot of rows addressed by its content: the rows before `holdout.start` train, the others judge."""

    uri: str
    """Path of one Parquet file, sorted by event timestamp and example id."""
    digest: Digest
    """Of the content, not of the file's encoding."""
    model: str
    feature_service: str
    as_of: Utc
    window: Window
    """Event times of all rows."""
    holdout: Window
    """The last part of `window`."""
    rows: NonNegativeInt
    holdout_rows: NonNegativeInt
    features: dict[str, Literal["numeric", "categorical"]]
    """Model inputs in column order."""


class DayLoss(Fact):
    """One day of some rows: what it takes to pair two models by day."""

    day: date
    """In UTC."""
    rows: PositiveInt
    loss_sum: NonNegativeFloat
    """The task's loss summed over the rows: log loss, or squared error."""
    auc_pull: float | None = None
    """How far the day's rows pull the AUC of all rows up or down; the pulls of all days sum to 0. None in a slice, and where
    only one class is present."""


class Progress(Fact):
    """How far a training run is: what rank 0 tells now and then."""

    step: NonNegativeInt
    steps: PositiveInt
    epoch: NonNegativeInt
    """From 1; 0 before the first step."""
    epochs: PositiveInt
    loss: float | None = None
    """Of the last step."""
    validation_loss: float | None = None
    """There when an epoch has just ended and days validate."""
    validation_by_day: tuple[DayLoss, ...] = ()
    """The same, day by day; there when an epoch has just ended and the spec may have the run given up."""
    learning_rate: NonNegativeFloat = 0.0
    rows_per_second: NonNegativeFloat = 0.0
    memory_bytes: NonNegativeInt = 0
    """Resident, of rank 0's process."""
    gpu_memory_bytes: NonNegativeInt | None = None
    gpu_use: Share | None = None
    """Of the last sample, where the device tells."""

    def __str__(self) -> str:
        losses = {"loss": self.loss, "validation loss": self.validation_loss}
        told = "".join(f", {name} {value:.4f}" for name, value in losses.items() if value is not None)
        return (
            f"epoch {self.epoch}/{self.epochs}, step {self.step}/{self.steps}{told}, {self.rows_per_second:,.0f} rows/s"
        )


class Rates(Fact):
    """Prices; None where nobody said one."""

    cpu_hour: NonNegativeFloat | None = None
    """Of one core."""
    gpu_hour: NonNegativeFloat | None = None
    currency: str = "USD"


class Cost(Fact):
    """What a run used."""

    device: str
    """Kind: `cpu`, or the GPU's name."""
    devices: PositiveInt
    seconds: NonNegativeFloat
    """Wall clock, from start to end, summed over resumed parts."""
    device_seconds: NonNegativeFloat
    """CPU seconds used by all ranks, or seconds of GPUs held."""
    energy_joules: NonNegativeFloat | None = None
    """None where the device does not tell."""
    price: NonNegativeFloat | None = None
    """By the rates in the settings; None where there is none."""
    currency: str = "USD"

    def __str__(self) -> str:
        energy = "" if self.energy_joules is None else f", {self.energy_joules / 3600:.2f} Wh"
        price = "" if self.price is None else f", {self.price:.4f} {self.currency}"
        kind = "CPU seconds" if self.device == "cpu" else f"seconds of {self.device}"
        return (
            f"{self.seconds:.1f} s on {self.devices} x {self.device}, {self.device_seconds:.1f} {kind}{energy}{price}"
        )


class TrainedModel(Fact):
    """A model artifact in a directory: weights, preprocessing and what is known of how it was made."""

    uri: str
    digest: Digest
    """Of the files of the artifact, by name."""
    training_set: TrainingSet
    spec_digest: Digest
    code_revision: str
    seed: int
    steps: NonNegativeInt
    resumed_from_step: NonNegativeInt = 0
    seconds: NonNegativeFloat
    ranks: int = 1
    curve: tuple[dict[str, float], ...] = ()
    """A row an epoch: step, epoch, train_loss, validation_loss, learning_rate."""
    job: Digest | None = None
    """Of the job that made it: by it the run of its training is found."""
    cost: Cost | None = None
    """Of all parts of that job."""


class Scores(Fact):
    """How well scores matched outcomes on some rows."""

    rows: NonNegativeInt
    task: Task = "binary"
    figures: dict[str, float]
    """By name; which ones depends on the task and is said in `evergreen/figures.py`. All have the loss, `calibration_error`,
    `score_std`, `min_score` and `max_score`; a whole holdout's also `calibration_error_low`."""
    by_day: tuple[DayLoss, ...] = ()
    """Oldest first; empty where nobody pairs them with another model's."""

    def __getitem__(self, name: str) -> float:
        return self.figures[name]

    @property
    def loss(self) -> float:
        """Mean loss of a row, by which models are compared: log loss, or squared error."""
        return self.figures[LOSS_NAMES[self.task].figure]

    @property
    def loss_name(self) -> str:
        """What `loss` is, in words."""
        return LOSS_NAMES[self.task].words

    def allowance(self, margin: float) -> float:
        """How far another loss may be from this one: `margin` itself in log loss, as a share of this loss in a regression.

        A squared error is in the label's unit squared, so no number means the same for two labels.
        """
        return margin * self.loss if self.task == "regression" else margin

    def told(self, loss: float, form: str = ".3f") -> str:
        """A loss, or a change of one, as sentences have it; a squared error can be of any size and has four digits."""
        return format(loss, form if self.task != "regression" else f"{'+' * form.startswith('+')}.4g")


class Abandoned(Fact):
    """A training that was given up, because it could no longer beat the champion."""

    model: str
    job: Digest
    reason: str
    cost: Cost | None = None


class ReliabilityBin(Fact):
    """Rows that were given much the same probability."""

    rows: PositiveInt
    mean_score: Share
    share: Share
    """Of the rows whose label is 1."""


class Evaluation(Fact):
    """One model's figures on one holdout, whole and by slice."""

    model: str
    artifact: Digest
    holdout: Window
    holdout_digest: Digest
    days: NonNegativeInt
    overall: Scores
    slices: dict[str, Scores] = {}
    """Keyed `column=value`."""
    reliability: tuple[ReliabilityBin, ...] = ()
    """Of a binary model, over the whole holdout, from low scores to high ones."""


class Baseline(Fact):
    """A plain model, trained beside a candidate on the same rows to see whether the candidate earns its place."""

    name: str
    evaluation: Evaluation | None
    """On the candidate's holdout; None where it was not trained."""
    note: str
    """How it was trained, or why it was not."""
    cpu_seconds: NonNegativeFloat = 0.0


class Baselines(Fact):
    """All plain models beside one candidate."""

    tried: tuple[Baseline, ...] = ()

    @property
    def evaluations(self) -> dict[str, Evaluation]:
        """Of those that were trained, by name."""
        return {one.name: one.evaluation for one in self.tried if one.evaluation is not None}


class Check(Fact):
    """One rule of a decision: what was measured, what was asked, and the verdict in words."""

    name: str
    passed: bool
    figure: float
    rule: str
    reason: str


class Footprint(Fact):
    """What a candidate costs who serves it."""

    size_bytes: NonNegativeInt
    """Of the artifact's files."""
    p99_row_ms: NonNegativeFloat
    """Of scoring one row alone, as a request with one row is scored."""
    rows: PositiveInt
    """That were timed."""


class GateDecision(Fact):
    """May this candidate replace the champion?"""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """True when every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why not, in words; empty when passed."""
        return tuple(check.reason for check in self.checks if not check.passed)


class ModelVersion(Fact):
    """One registered version, gated or refused."""

    model: str
    version: int
    uri: str
    """`models:/NAME/VERSION`."""
    run_id: str
    artifact: Digest
    passed: bool
    reasons: tuple[str, ...] = ()
    seal: str | None = None
    """Signed envelope over `artifact` and the verdict; None where nobody vouches for it."""


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
    shadow_latency_ms: NonNegativeFloat | None = None


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


class PerformanceReport(Fact):
    """What served in a window beside what came true."""

    model: str
    version: int
    window: Window
    served: NonNegativeInt
    labelled: NonNegativeInt
    scores: Scores | None
    """None while too few labels are in."""
    calibration_gap: float | None = None
    """Mean score minus the share that came true, over the window; of other tasks see `evaluation.calibration_gap`."""
    days: NonNegativeInt = 0
    probe: ProbeReport | None = None
    """None while too few outcomes are in to make it."""

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


class Release(Fact):
    """Which version serves what share: one row a model, changed by compare-and-swap on `revision`."""

    model: str
    revision: NonNegativeInt = 0
    champion: int | None = None
    challenger: int | None = None
    challenger_share: Share = 0.0
    """Of the traffic; at 0 it stands in the shadow: it scores what the champion answers."""
    previous: int | None = None
    changed_at: Utc
    """Logical time of the last change; a challenger's dwell counts from here."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.challenger is None and self.challenger_share != 0.0:
            raise ValueError(f"a share of {self.challenger_share} without a challenger")
        if self.challenger is not None and self.challenger == self.champion:
            raise ValueError(f"version {self.champion} cannot be champion and challenger at once")
        return self


class LiveFigures(Fact):
    """What one version did in production since the release last changed, answering or scoring beside the other."""

    version: int
    rows: NonNegativeInt
    """That it was asked to score."""
    failed: NonNegativeInt = 0
    """Of them: it raised, and the champion answered."""
    labelled: NonNegativeInt
    scores: Scores | None
    p99_latency_ms: NonNegativeFloat


class ReleaseDecision(Fact):
    """What to do with the challenger now."""

    revision: NonNegativeInt
    """Of the release that was judged; the decision is about no other."""
    action: Literal["hold", "advance", "promote", "roll_back"]
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]


class JournalEntry(Fact):
    """One change of a release."""

    model: str
    revision: int
    action: str
    actor: str
    reason: str
    at: Utc
    before: Release | None
    after: Release
    request: str | None = None
    """Who asks again under this name is told what came of it and changes nothing."""


class Finding(Fact):
    """Something the reconciler found to differ from what the journal says."""

    model: str
    kind: Literal["release_row", "half_done", "moved_by_hand", "not_servable"]
    repaired: bool
    reason: str


class Trial(Fact):
    """One training of a search for better values."""

    number: NonNegativeInt
    state: Literal["complete", "pruned", "failed", "running", "waiting"]
    values: dict[str, float | str]
    loss: float | None = None
    """On the days that judge; None unless complete."""
    cost: Cost | None = None


class Tuning(Fact):
    """What a search for better values came to."""

    model: str
    study: str
    trials: tuple[Trial, ...]
    best: Trial
    present: Trial | None
    """The one with the values the spec has now; None where it did not end well."""
    uri: str
    """The tuned spec's file."""
    diff: str
    """From the present spec to the tuned one; empty where nothing better was found."""


class Outcome(Fact):
    """What a retrain came to."""

    model: str
    verdict: Literal["passed", "refused", "abandoned", "suppressed", "done"]
    """`abandoned`: training was given up, so there is no version. `done`: this very request was answered before; nothing was
    done again."""
    reasons: tuple[str, ...]
    request: RetrainRequest
    version: ModelVersion | None = None
    release: Release | None = None
