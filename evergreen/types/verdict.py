"""All that stands behind one gate's word: what the verdict's page and its JSON show."""

from evergreen.types.fact import Cause, Fact
from evergreen.types.gate import Baselines, Evaluation, Footprint, GateDecision, ModelVersion
from evergreen.types.parity import Parity
from evergreen.types.training import TrainedModel


class Verdict(Fact):
    """One candidate at its gate, passed or refused."""

    version: ModelVersion
    owner: str
    cause: Cause
    candidate: TrainedModel
    decision: GateDecision
    evaluation: Evaluation
    champion: Evaluation | None = None
    champion_version: int | None = None
    """Its number; None where another serves by now."""
    baselines: Baselines = Baselines()
    footprint: Footprint | None = None
    parity: Parity | None = None
    confidence: float = 0.9
    """One-sided, of the bounds."""
