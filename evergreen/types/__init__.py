"""The nouns that travel between steps.

Frozen, closed, finite, UTC. They carry URIs and digests, never frames, tensors or clients, so each of them survives a
process boundary, a Prefect result and an MLflow tag. Every decision carries its reasons.
"""

from evergreen.types.fact import LOSS_NAMES, Cause, Cell, Digest, Fact, LossName, Share, Task, Utc, Window
from evergreen.types.gate import (
    Baseline,
    Baselines,
    Check,
    Evaluation,
    Footprint,
    GateDecision,
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
from evergreen.types.release import Finding, JournalEntry, LiveFigures, Outcome, Release, ReleaseDecision
from evergreen.types.remedy import Recalibration, Remedy
from evergreen.types.training import Abandoned, Cost, DayLoss, Progress, Rates, TrainedModel, TrainingSet, Trial, Tuning

__all__ = [
    "LOSS_NAMES",
    "Abandoned",
    "Alarm",
    "Baseline",
    "Baselines",
    "Cause",
    "Cell",
    "Check",
    "Cost",
    "DayLoss",
    "Digest",
    "DriftReport",
    "DriftVerdict",
    "Evaluation",
    "Fact",
    "Fault",
    "FeatureDrift",
    "FeatureShift",
    "Finding",
    "Footprint",
    "GateDecision",
    "JournalEntry",
    "LiveFigures",
    "LossName",
    "ModelVersion",
    "Outcome",
    "PerformanceReport",
    "Prediction",
    "ProbeReport",
    "Progress",
    "Rates",
    "Recalibration",
    "Release",
    "ReleaseDecision",
    "ReliabilityBin",
    "Remedy",
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
    "WatchCheck",
    "Window",
]
