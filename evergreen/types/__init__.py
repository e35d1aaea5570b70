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
    ChallengerReport,
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
    WatchRecord,
)
from evergreen.types.parity import ColumnParity, Parity
from evergreen.types.performance import (
    CensoredPerformance,
    DayPerformance,
    Interval,
    PerformanceEstimate,
    SlicePerformance,
    WindowEstimate,
)
from evergreen.types.pipeline import Arrivals, BuildReport, IngestReport
from evergreen.types.release import Finding, JournalEntry, LiveFigures, Outcome, Release, ReleaseDecision, TakenBack
from evergreen.types.remedy import Recalibration, Remedy
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
    "Arrivals",
    "Attribution",
    "Baseline",
    "Baselines",
    "BuildReport",
    "Cause",
    "Cell",
    "CensoredPerformance",
    "ChallengerReport",
    "Check",
    "ColumnParity",
    "Cost",
    "DayLoss",
    "DayPerformance",
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
    "IngestReport",
    "Interval",
    "JournalEntry",
    "LiveFigures",
    "LossName",
    "ModelVersion",
    "Outcome",
    "Parity",
    "PerformanceEstimate",
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
    "SlicePerformance",
    "TakenBack",
    "Task",
    "TrainedModel",
    "TrainingSet",
    "Trial",
    "Tuning",
    "Utc",
    "Verdict",
    "WatchCheck",
    "WatchRecord",
    "Window",
    "WindowEstimate",
]
