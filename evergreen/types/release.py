"""Which version serves what share, why, and how a flow ended."""

from typing import Literal, Self

from pydantic import (
    NonNegativeFloat,
    NonNegativeInt,
    model_validator,
)

from evergreen.types.ab_test import AbTest
from evergreen.types.fact import Fact, Share, Utc
from evergreen.types.gate import Check, ModelVersion, Scores
from evergreen.types.monitoring import RetrainRequest


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
    test: AbTest | None = None
    """While an A/B test runs the split stays as it is, and nothing is rolled out."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.challenger is None and self.challenger_share != 0.0:
            raise ValueError(f"a share of {self.challenger_share} without a challenger")
        if self.challenger is not None and self.challenger == self.champion:
            raise ValueError(f"version {self.champion} cannot be champion and challenger at once")
        if self.test is not None and self.challenger is None:
            raise ValueError("an A/B test without a challenger")
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
    """Logical time of the change: a flow's `as_of`."""
    before: Release | None
    after: Release
    request: str | None = None
    """Who asks again under this name is told what came of it and changes nothing."""
    recorded_at: Utc | None = None
    """When it was written down, by the clock on the wall; None in what is older than this field."""


class TakenBack(Fact):
    """What a roll-back came to."""

    release: Release
    """As the roll-back left it, which may be a while ago where the request was answered before."""
    already: str | None = None
    """Why nothing was changed, and how to go one further back; of a request that was answered before, what the release
    has become since. None otherwise."""


class Finding(Fact):
    """Something the reconciler found to differ from what the journal says."""

    model: str
    kind: Literal["release_row", "half_done", "moved_by_hand", "not_servable"]
    repaired: bool
    reason: str


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
