"""`[gate]`: what a candidate must prove."""

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from evergreen.spec.table import Table
from evergreen.types import Share


class FairnessConfig(Table):
    """How far groups may be apart, the highest from the lowest. The `[gate.fairness]` table; not there: nobody asks.

    A bound refuses where the difference is proved to be above it: beyond what the days' scatter explains, with
    `[gate].confidence`.
    """

    column: str
    """Whose values are the groups: one of `[data].slices`."""
    threshold: Share = 0.5
    """A row is selected from this score on."""
    min_rows: PositiveInt = 300
    """Groups with fewer rows are not compared; nor, in the true positive rate, those with fewer rows of label 1."""
    max_selection_gap: Share | None = None
    """Of the share that is selected (demographic parity). Binary models."""
    max_true_positive_gap: Share | None = None
    """Of the share that is selected among the rows of label 1 (equal opportunity). Binary models."""
    max_loss_gap: NonNegativeFloat | None = None
    """Of the mean loss of a row; in a regression, whose loss is the squared error, as a share of that of all rows."""


class GateConfig(Table):
    """When is a candidate good enough? The `[gate]` table."""

    min_rows: PositiveInt = 1_000
    """Refuse to judge on fewer holdout rows than this."""
    min_days: PositiveInt = 3
    """Refuse to judge on fewer holdout days than this."""
    max_log_loss: PositiveFloat | None = None
    """Absolute, of a classification. Unset: 0.69 for two classes, where a coin has 0.693, and in that proportion to
    a blind guess's for more."""
    min_auc: Share = 0.55
    """Absolute, of a classification; of more than two classes the mean over each against the others."""
    min_r2: Annotated[float, Field(le=1.0)] = 0.0
    """Absolute, of a regression: the share of the label's variance it explains; 0 is saying the mean of these very rows."""
    min_score_std: NonNegativeFloat = 0.01
    """Absolute: scores that spread less than this, or not at all, tell nothing apart. Of more than two classes the one whose
    probability spreads most counts; in a regression it is a share of the label's own standard deviation."""
    max_calibration_error: Share = 0.15
    """Absolute: refuse when the expected calibration error over 10 bins is above this beyond what the days' scatter
    explains (95%, one-sided). Of more than two classes it is the most likely one's; in a regression the bins are tenths of
    the rows by score, and it is in standard deviations of the label."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    """Of every comparison with the champion, one-sided: two models on the same rows, paired by day."""
    margin: NonNegativeFloat = 0.01
    """Non-inferiority: with that confidence the loss on the same rows rises by no more than this over the champion's. This and
    the other margins are in log loss; in a regression, whose loss is the squared error, they are shares of the loss they
    are compared with. A week of flights tells differences of about 0.006 apart; much less than that here refuses nearly
    everything."""
    superiority: bool = False
    """Also ask, with that confidence, that the loss falls."""
    max_auc_drop: Share | None = None
    """Also ask of a classification, with that confidence, that the AUC falls by no more than this. Unset: shown and decides
    nothing."""
    baseline_margin: NonNegativeFloat | None = None
    """Also ask, with that confidence, that the loss is no more than this above that of the best baseline trained on the same
    rows (logistic regression, and LightGBM where it is installed). Unset: shown and decides nothing."""
    max_slice_loss: NonNegativeFloat = 0.05
    """Refuse when a slice's loss rises by more than this margin over the champion's, and that it rises at all is proved with
    that confidence, all judged slices taken together (Holm)."""
    min_slice_rows: PositiveInt = 300
    """Slices with fewer rows are not judged."""
    max_artifact_mb: PositiveFloat | None = None
    """Absolute: of the artifact's files together. Unset: shown and decides nothing."""
    max_row_ms: PositiveFloat | None = None
    """Absolute: of scoring one row, at the 99th percentile, on the machine that judges. Unset: shown and decides nothing."""
    attribution_rows: NonNegativeInt = 2_000
    """Held-out rows, of every day alike, on which each feature is shuffled to see what it is worth; 0: none."""
    max_feature_share: Share | None = None
    """Refuse when one feature is worth more than this share of all: such a one has often seen the label. Unset: shown and
    decides nothing."""
    parity_rows: Annotated[int, Field(ge=0, le=10_000)] = 500
    """Logged answers of the champion that are computed again from offline features, drawn with `[train].seed`; 0: none. Where
    there are some and none can be, the gate refuses, unless all of them brought their own features."""
    parity_days: PositiveInt = 7
    """How far back they are drawn from."""
    parity_tolerance: NonNegativeFloat = 1e-4
    """A value or a score may differ by this, relative to itself where it is above 1."""
    max_parity_mismatches: Share = 0.02
    """Refuse when a greater share of them has a value or a score that differs: what is served is not what is learnt from."""
    fairness: FairnessConfig | None = None
    """How far groups of rows may be apart; not there: nobody asks."""
