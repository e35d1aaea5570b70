"""What was logged beside what the offline features and the model say of the same request."""

from pydantic import NonNegativeFloat, NonNegativeInt

from evergreen.types.fact import Cell, Fact, Share, Window


class ColumnParity(Fact):
    """A feature some of whose logged values are not the offline ones."""

    column: str
    rows: NonNegativeInt
    """Whose value differs."""
    example_id: str
    """One of them, with what it was answered from and what the feature store says now of that moment."""
    logged: Cell
    offline: Cell


class Parity(Fact):
    """Requests that one version answered, computed again."""

    version: int
    window: Window
    """Event times of the requests."""
    answers: NonNegativeInt
    """The version's in the log of the window."""
    rows: NonNegativeInt
    """Of these, drawn and computed again."""
    seed: int
    """Of the draw."""
    unknown: NonNegativeInt = 0
    """Drawn, but they brought their own features, or no example of that name was known when it was asked about. Not in `rows`."""
    behind: NonNegativeInt = 0
    """Rows that were answered from the newest refresh of the online store, while a newer value was known. No mismatch."""
    mismatches: NonNegativeInt = 0
    """Rows with a value or a score that differs by more than the tolerance."""
    wrong_scores: NonNegativeInt = 0
    """Rows whose logged features give another score than the one logged, by the same version."""
    moved_scores: NonNegativeInt = 0
    """Rows that the offline features give another score than the one logged."""
    largest_move: NonNegativeFloat = 0.0
    """Of a score, between logged and offline features."""
    columns: tuple[ColumnParity, ...] = ()
    """With mismatches, the worst first."""
    example_id: str | None = None
    """Of a row with a mismatch."""
    note: str = ""
    """Why nothing could be computed again, where that is so."""

    @property
    def share(self) -> Share:
        """Of the rows computed again that differ."""
        return self.mismatches / self.rows if self.rows else 0.0
