"""How good a candidate is, what was checked, and the version that came of it."""

from datetime import date

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
)

from evergreen.types.attribution import Attribution
from evergreen.types.fact import LOSS_NAMES, Digest, Fact, Share, Task, Utc, Window
from evergreen.types.training import DayLoss


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


class ReliabilityBin(Fact):
    """Rows that were given much the same probability."""

    rows: PositiveInt
    mean_score: Share
    share: Share
    """Of the rows whose label is 1."""


class GroupDay(Fact):
    """One day of one group of rows, counted so that groups can be compared with days as the unit."""

    rows: PositiveInt
    loss_sum: NonNegativeFloat
    selected: NonNegativeInt = 0
    """Scored at the threshold or above; 0 unless the model is binary."""
    positives: NonNegativeInt = 0
    """Whose label is 1."""
    true_positives: NonNegativeInt = 0
    """Of the positives, those selected."""


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
    unsound_scores: NonNegativeInt = 0
    """Rows given no finite number, or no probability; they count as a blind guess in all figures."""
    attribution: Attribution | None = None
    """Of a candidate: what it leans on."""
    groups: dict[str, dict[date, GroupDay]] = {}
    """Of a candidate whose spec bounds the difference between groups: a group's days that have rows of it."""
    learnt_until: Utc | None = None
    """Of a champion: end of the rows that it learnt from."""


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
    timed: bool = False
    """A clock measured the figure, so that the next judgement says another."""


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
