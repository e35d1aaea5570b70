"""The nouns that travel between steps.

Frozen, closed, finite, UTC. They carry URIs and digests, never frames, tensors or clients, so each of them survives a
process boundary, a Prefect result and an MLflow tag. Every decision carries its reasons.
"""

from evergreen.types.ab_test import AbTest, AbTestDecision, AbTestFigures, Arm
from evergreen.types.attribution import Attribution, FeatureImportance
from evergreen.types.fact import LOSS_NAMES, Cause, Cell, Digest, Fact, LossName, Share, Task, Utc, Window
from evergreen.types.gate import (
    Baseline,
    Baselines,
    Check,
    Evaluation,
    Footprint,
    GateDecision,
    GroupDay,
    ModelVersion,
    ReliabilityBin,
    Scores,
)
from evergreen.types.monitoring import (
    Alarm,
    DriftReport,
    DriftVerdict,
    Fault,
    FeatureDrift,
    FeatureShift,
    PerformanceReport,
    Prediction,
    ProbeReport,
    RetrainDecision,
    RetrainRequest,
    WatchCheck,
)
from evergreen.types.parity import ColumnParity, Parity
from evergreen.types.release import Finding, JournalEntry, LiveFigures, Outcome, Release, ReleaseDecision
from evergreen.types.training import Abandoned, Cost, DayLoss, Progress, Rates, TrainedModel, TrainingSet, Trial, Tuning
from evergreen.types.verdict import Verdict

__all__ = [
    "LOSS_NAMES",
    "AbTest",
    "AbTestDecision",
    "AbTestFigures",
    "Abandoned",
    "Alarm",
    "Arm",
    "Attribution",
    "Baseline",
    "Baselines",
    "Cause",
    "Cell",
    "Check",
    "ColumnParity",
    "Cost",
    "DayLoss",
    "Digest",
    "DriftReport",
    "DriftVerdict",
    "Evaluation",
    "Fact",
    "Fault",
    "FeatureDrift",
    "FeatureImportance",
    "FeatureShift",
    "Finding",
    "Footprint",
    "GateDecision",
    "GroupDay",
    "JournalEntry",
    "LiveFigures",
    "LossName",
    "ModelVersion",
    "Outcome",
    "Parity",
    "PerformanceReport",
    "Prediction",
    "ProbeReport",
    "Progress",
    "Rates",
    "Release",
    "ReleaseDecision",
    "ReliabilityBin",
    "RetrainDecision",
    "RetrainRequest",
    "Scores",
    "Share",
    "Task",
    "TrainedModel",
    "TrainingSet",
    "Trial",
    "Tuning",
    "Utc",
    "Verdict",
    "WatchCheck",
    "Window",
]
