"""Pictures by the real matplotlib: whole PNG files whose ink follows the figures."""

import io

import numpy as np
import pytest
from PIL import Image

from evergreen.adapters.plots import reliability_diagram, training_curve
from evergreen.reliability import reliability
from evergreen.types import Evaluation
from tests.factories import an_evaluation

CURVE = [
    {"step": 200.0 * n, "epoch": float(n), "train_loss": 0.6 / n + 0.4, "validation_loss": 0.5 / n + 0.42, "learning_rate": lr}
    for n, lr in enumerate([2e-3, 4e-3, 2.5e-3, 1e-5], start=1)
]  # fmt: skip


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int64)


def ink(png: bytes, color: str) -> int:
    """How many pixels are of this color."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels(png) - wanted).sum(axis=2) < 12).sum())


def judged(bend: float) -> Evaluation:
    draw = np.random.default_rng(0)
    scores = draw.beta(1.5, 4, 6_000)
    labels = draw.random(6_000) < scores**bend
    return an_evaluation().model_copy(update={"reliability": reliability(labels, scores)})


def test_the_curve_has_both_losses_and_the_learning_rate() -> None:
    png = training_curve(CURVE, "flight_delay: training")

    assert pixels(png).shape == (598, 936, 3)
    assert min(ink(png, color) for color in ("#2f7d4f", "#8a8f98", "#b0703c")) > 300


def test_a_run_without_validation_days_has_a_curve_too() -> None:
    png = training_curve([{key: row[key] for key in ("step", "epoch", "train_loss")} for row in CURVE], "no days")

    assert ink(png, "#2f7d4f") == 0
    assert ink(png, "#8a8f98") > 300


@pytest.mark.parametrize("champion", [None, judged(0.7)], ids=["alone", "beside a champion"])
def test_the_diagram_shows_the_candidate_and_the_champion_if_there_is_one(champion: Evaluation | None) -> None:
    png = reliability_diagram(judged(1.0), champion, "flight_delay: calibration")

    assert ink(png, "#2f7d4f") > 500
    assert (ink(png, "#b0703c") > 500) == (champion is not None)


def test_the_same_figures_are_the_same_bytes() -> None:
    assert training_curve(CURVE, "same") == training_curve(CURVE, "same")
