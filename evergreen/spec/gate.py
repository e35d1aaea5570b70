"""`[gate]`: what a candidate must prove."""

from typing import Annotated

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from evergreen.spec.table import Table
from evergreen.types import Share


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
