"""What a model leans on, and how much of it was measured."""

from pydantic import NonNegativeFloat, NonNegativeInt

from evergreen.types.fact import Fact


class FeatureImportance(Fact):
    """What one feature is worth to a model on some held-out rows."""

    feature: str
    rise: float
    """Of the mean loss of a row, when the feature's values are shuffled among the rows; below 0 it did harm there."""
    error: NonNegativeFloat | None = None
    """Standard error of `rise` over days; None on one day."""


class Attribution(Fact):
    """Permutation importance of every feature, the weightiest first."""

    features: tuple[FeatureImportance, ...]
    rows: NonNegativeInt
    """Held-out rows it was measured on."""
    days: NonNegativeInt
    loss: float
    """Mean loss of these rows as they are."""
    seed: int
    """Of the draw of the rows and of the shuffles."""

    @property
    def shares(self) -> dict[str, float]:
        """Each feature's part of all rises, which sum to 1; a feature that did harm has none. What drift may be weighed by."""
        rises = {one.feature: max(one.rise, 0.0) for one in self.features}
        whole = sum(rises.values())
        return {feature: rise / whole if whole else 0.0 for feature, rise in rises.items()}
