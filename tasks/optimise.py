"""Optimised variants of a version: make one, and judge it beside its parent on the same rows and at the same speed test."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from prefect import get_run_logger, task

from evergreen.gate import decide
from evergreen.gate.budgets import answers_as_parent, faster_than_parent
from evergreen.spec import ModelSpec
from evergreen.types import Cause, Check, GateDecision, ModelVersion, TrainedModel, TrainingSet
from evergreen.wiring import wiring
from tasks.gate import evaluate_artifact, evaluate_candidate, measure

TIMED_ROWS = 300


def makeable() -> list[str]:
    """The variants that can be made here; why another cannot goes into the run's log."""
    from evergreen.training.network.variants import VARIANTS

    found = []
    for name, way in VARIANTS.items():
        if (why := way.absent()) is not None:
            get_run_logger().warning("the variant %s is left out: %s", name, why)
        elif name != "plain":
            found.append(name)
    return found


@task
def make_variant(parent: ModelVersion, variant: str) -> TrainedModel:
    """The parent's weights, to be run another way, as an artifact of its own beside the training jobs' ones."""
    from evergreen.training.artifact import read_artifact, write_artifact
    from evergreen.training.predictor import as_variant_of

    registry, settings = wiring().registry, wiring().settings
    files = read_artifact(registry.fetch(parent, settings.models_cache), parent.artifact)
    folder = settings.artifacts / "variants" / f"{parent.artifact.removeprefix('sha256:')}-{variant}"
    digest = write_artifact(folder, as_variant_of(files, variant))
    trained = registry.candidate(parent)
    return trained.model_copy(update={"uri": str(folder), "digest": digest, "job": None, "cost": None})


@task
def judge_variant(spec: ModelSpec, parent: ModelVersion, variant: TrainedModel, name: str) -> ModelVersion:
    """Judge it as a candidate whose champion is its parent, by its answers and by its speed; register it with its verdict."""
    registry, training_set = wiring().registry, variant.training_set
    folder = str(registry.fetch(parent, wiring().settings.models_cache))
    of_parent = evaluate_artifact(spec, folder, parent.artifact, training_set)
    of_variant = evaluate_candidate.fn(spec, variant, training_set)
    beside = compare(folder, variant.uri, training_set, name)
    footprint, baselines = measure.fn(variant, training_set), registry.baselines(parent)  # of the same rows
    judged = decide(of_variant, of_parent, spec.gate, baselines, footprint=footprint)
    decision = GateDecision(checks=(*judged.checks, *beside))
    tags = {"evergreen.parent": str(parent.version), "evergreen.variant": name}
    return registry.register(variant, of_variant, of_parent, decision, Cause.PERSON, spec, tags)


def compare(parent: str, variant: str, training_set: TrainingSet, name: str) -> tuple[Check, Check]:
    """Score held-out rows with both: all together, and one at a time, in turns, as serving hands them to a predictor."""
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.network.variants import VARIANTS
    from evergreen.training.predictor import Predictor

    sides = [Predictor.load(parent), Predictor.load(variant)]
    rows = load_training_set(training_set).tail(TIMED_ROWS)
    columns = sides[0].columns(rows)
    said, expected = sides[1].score(columns), sides[0].score(columns)
    furthest = float(np.abs(said - expected).max() / (np.abs(expected).max() or 1.0))
    milliseconds: list[list[float]] = [[], []]
    for place in range(len(rows)):
        one: Mapping[str, list[Any]] = {column: cells[place : place + 1].tolist() for column, cells in columns.items()}
        for side, predictor in enumerate(sides):
            started = time.perf_counter()
            predictor.score(one)
            milliseconds[side].append(1000 * (time.perf_counter() - started))
    of_parent, of_variant = (float(np.median(some)) for some in milliseconds)
    return (
        answers_as_parent(furthest, len(rows), VARIANTS[name].exact),
        faster_than_parent(of_variant, of_parent, len(rows)),
    )
