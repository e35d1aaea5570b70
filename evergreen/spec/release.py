"""`[release]` and `[serve]`: how a version gets its traffic, and how it answers."""

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


class ReleaseConfig(Table):
    """How does a gated version take over? The `[release]` table."""

    steps: tuple[Share, ...] = (0.0, 0.05, 0.25, 0.5, 1.0)
    """Share of the traffic at each step; the last is 1. At 0 the challenger stands in the shadow: it scores what the champion
    answers. `[1.0]` alone gives a gated version everything at once (blue-green)."""
    approval: Literal["auto", "manual"] = "auto"
    """Manual: a version that passed waits for a person's yes in Prefect's UI before it takes part."""
    approval_hours: PositiveFloat = 24.0
    """How long it waits; no answer is a no."""
    shadow: bool = True
    """While a challenger is open both versions score every row, so that they are compared on the same rows. Costs the
    scoring twice; without it, and always where there are more than two classes, they are compared on the rows each
    answered, which takes a hundred times as many."""
    dwell_hours: NonNegativeFloat = 24
    """How long a step lasts at least."""
    min_rows: NonNegativeInt = 100
    """Answers the challenger must have given at a step."""
    max_latency_ms: PositiveFloat = 250.0
    """Roll back when the challenger's p99 is above."""
    max_error_share: Share = 0.001
    """Roll back when the challenger fails on more of the rows than this; the champion answers those."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of the daily comparison on the same rows, over all looks of a release together."""
    max_proved_loss: NonNegativeFloat = 0.0
    """Roll back when it is proved with that confidence that the challenger's log loss rises by more than this, days as the
    unit. Two classes only."""
    max_live_loss: PositiveFloat = 0.25
    """Roll back when the challenger's loss on matured live rows is this much above the champion's: in log loss, or in
    a regression as a share of the champion's squared error."""
    min_live_labels: PositiveInt = 200
    """and at least this many outcomes are in for it."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.steps[:1] == (0.0,) and not self.shadow:
            raise ValueError(
                "steps begin in the shadow (0.0), but shadow = false: nothing would be asked of the challenger"
            )
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 1.0:
            raise ValueError(f"steps {list(self.steps)} must rise and end at 1.0, for example [0.1, 0.5, 1.0]")
        return self


class ServeConfig(Table):
    """How does it answer? The `[serve]` table."""

    unknown_entity: Literal["defaults", "refuse"] = "defaults"
    """Answer a request whose entity the store has never seen from missing values, or refuse it with 404; counted either way."""
    max_rows: PositiveInt = 1_000
    """Rows of one request."""
    batch_rows: PositiveInt = 64
    """Concurrent requests are answered together, in batches of at most so many rows; one with more goes by itself."""
    queue_rows: PositiveInt = 2_000
    """Rows that may wait or be worked on in one process; what comes beyond is refused with 503 and `Retry-After`."""
    timeout_seconds: PositiveFloat = 10.0
    """A request that waited longer before its turn is refused the same way."""
    feature_cache_seconds: NonNegativeFloat = 1.0
    """Stored feature values read for one request serve others for so long, at most their view's TTL; so long it may take
    until a materialization is seen. Their freshness is judged at each answer all the same. 0: every request reads anew."""
    feature_cache_entries: NonNegativeInt = 20_000
    """Entities of views kept in one process, the least recently used go first; 0: none."""
    prediction_cache_entries: NonNegativeInt = 0
    """Answers kept in one process by version and features, some 2 kB each with fifty features; each is logged as a prediction
    of its own. Worth it where the same features come again; where they hold something that moves with the clock they do not."""
