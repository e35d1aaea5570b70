"""What the gate looks at: everything that was measured of a candidate, in one place."""

from dataclasses import dataclass, field

from evergreen.errors import DataError
from evergreen.spec import GateConfig
from evergreen.types import Baselines, Evaluation, Footprint, Parity


@dataclass(frozen=True)
class Evidence:
    """What a rule may ask of; None where it was not measured."""

    candidate: Evaluation
    config: GateConfig
    champion: Evaluation | None = None
    """On the same held-out rows."""
    baselines: Baselines = field(default_factory=Baselines)
    footprint: Footprint | None = None
    parity: Parity | None = None


def require_same_holdout(candidate: Evaluation, champion: Evaluation, other: str = "champion") -> None:
    """Figures of different rows say nothing about each other: raise `DataError`."""
    same = candidate.holdout_digest == champion.holdout_digest and candidate.holdout == champion.holdout
    if not same or candidate.overall.rows != champion.overall.rows:
        raise DataError(
            f"the candidate was scored on {_rows_of(candidate)}, the {other} on {_rows_of(champion)}: a gate compares "
            f"two models on the same rows. Score the {other} again on the candidate's holdout."
        )


def _rows_of(evaluation: Evaluation) -> str:
    return f"{evaluation.overall.rows:,} rows of {evaluation.holdout} ({evaluation.holdout_digest[:19]}…)"
