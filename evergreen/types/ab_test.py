"""An A/B test: how it was planned, what both arms did, and how it ended."""

from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt

from evergreen.types.fact import Fact, Share, Utc
from evergreen.types.gate import Check


class AbTest(Fact):
    """A test as it was planned when it began: what it is judged by does not change while it runs."""

    salt: str
    """Part of the hash that gives an entity its arm, so that each test draws anew."""
    started_at: Utc
    entity: str | None
    """Column of a request whose value has one arm throughout; None: each example by itself."""
    min_days: PositiveInt
    max_days: PositiveInt
    min_rows: PositiveInt
    confidence: Share
    margin: NonNegativeFloat
    sample_ratio_alpha: Share


class Arm(Fact):
    """One version's side of a test, over finished days."""

    version: int
    entities: NonNegativeInt
    """That only this version answered."""
    rows: NonNegativeInt
    labelled: NonNegativeInt
    """On days whose outcomes are in; the loss is of these."""
    loss: NonNegativeFloat | None


class AbTestFigures(Fact):
    """What both arms did so far."""

    champion: Arm
    challenger: Arm
    crossed: NonNegativeInt
    """Entities that both versions answered; they are on neither side."""
    days: tuple[float, ...]
    """Mean loss of the challenger's rows less that of the champion's, of each day whose outcomes are in, oldest first: in log
    loss, or in a regression as a share of the champion's."""
    entity_error: NonNegativeFloat
    """Standard error of the mean of `days` that comes of entities which return on other days; 0 where none does."""


class AbTestDecision(Fact):
    """What to do with a test now."""

    revision: NonNegativeInt
    """Of the release that was judged."""
    verdict: Literal["go_on", "promote", "keep", "inconclusive"]
    """`keep`: the champion is better. `inconclusive`: nobody knows, and the champion stays."""
    difference: float
    """In loss, challenger less champion."""
    low: float | None
    """It is between these, at every look so far with the test's confidence; None while nothing can be said."""
    high: float | None
    checks: tuple[Check, ...]
    reasons: tuple[str, ...]
