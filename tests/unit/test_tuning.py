"""What a search may try, and the spec that comes of it."""

import tomllib
from pathlib import Path

import pytest

from evergreen.errors import SpecError, TrainingFailed
from evergreen.settings import ROOT
from evergreen.spec import load_spec, parse_spec
from evergreen.tuning import Value, axes_of, best_of, difference, present, rewritten, study_name, with_values
from evergreen.types import Trial
from tests.factories import a_trained_model

PATH = ROOT / "models" / "flight_delay.toml"
SPEC = load_spec(PATH)
VALUES: dict[str, Value] = {
    "learning_rate": 0.0017283,
    "dropout": 0.18,
    "epochs": 6,
    "hidden": "512-256",
    "batch_size": 2048,
}


def test_the_present_values_are_always_within_what_is_searched() -> None:
    far = with_values(SPEC, {"learning_rate": 0.09, "hidden": "7-5", "epochs": 30})

    axes = {axis.key: axis for axis in axes_of(far)}

    assert (axes["learning_rate"].low, axes["learning_rate"].high) == (5e-4, 0.09)
    assert axes["learning_rate"].logarithmic
    assert axes["epochs"].high == 30
    assert axes["epochs"].whole
    assert axes["hidden"].choices == ("7-5", "128-64", "256-128", "512-256")
    assert present(far)["hidden"] == "7-5"


def test_a_study_is_the_same_once_its_best_values_are_the_present_ones_and_another_where_others_may_be_tried() -> None:
    rows = a_trained_model().training_set
    adopted = with_values(SPEC, {"hidden": "512-256", "batch_size": 2048})
    wider = parse_spec(tomllib.loads(PATH.read_text() + "\n[tune]\nbatch_size = [256, 1024, 2048, 512]\n"))

    name, once_adopted, with_more = (study_name("m", rows, axes_of(spec)) for spec in (SPEC, adopted, wider))

    assert once_adopted == name
    assert with_more != name


def test_an_empty_list_leaves_a_key_alone() -> None:
    spec = parse_spec(tomllib.loads(PATH.read_text() + "\n[tune]\nhidden = []\ndropout = []\n"))

    assert {"hidden", "dropout"}.isdisjoint(axis.key for axis in axes_of(spec))


@pytest.mark.parametrize("wrong", ["dropout = [0.5, 0.1]", "epochs = [3]"])
def test_a_range_has_a_lowest_and_a_highest_value(wrong: str) -> None:
    with pytest.raises(SpecError, match="give the lowest and the highest value"):
        parse_spec(tomllib.loads(PATH.read_text() + f"\n[tune]\n{wrong}\n"))


def test_a_trial_trains_with_the_values_that_would_be_written() -> None:
    train = with_values(SPEC, VALUES).train

    assert (train.learning_rate, train.hidden, train.epochs, train.batch_size) == (0.00173, (512, 256), 6, 2048)
    text = rewritten(PATH.read_text(), VALUES, "flight_delay.toml")
    assert parse_spec(tomllib.loads(text)) == with_values(SPEC, VALUES)


def test_whole_numbers_stay_whole_from_a_trial_to_the_file() -> None:
    values: dict[str, Value] = {**VALUES, "batch_size": 1024, "learning_rate": 0.0017283}
    trial = Trial(number=0, state="complete", values=values, loss=0.5)

    kept = Trial.model_validate_json(trial.model_dump_json()).values

    assert with_values(SPEC, kept).train.batch_size == 1024
    lines = rewritten(PATH.read_text().replace("batch_size = 1024", "batch_size = 7"), kept, "m.toml").splitlines()
    assert {"batch_size = 1024", "epochs = 6", "learning_rate = 0.00173"} <= set(lines)


def test_where_every_trial_failed_the_last_ones_reason_is_told() -> None:
    reasons = ("too little memory", "it diverged", None)
    trials = [Trial(number=i, state="failed", values={}, failure=why) for i, why in enumerate(reasons)]

    with pytest.raises(
        TrainingFailed, match=r"(?s)every trial of the study 'toy' failed, 3 .*why: it diverged\nMend that"
    ):
        best_of(trials, "toy")


def test_only_the_lines_of_those_keys_change_and_comments_stay() -> None:
    before = "[model]\nname = 'm'  # of mine\n\n[train]\nepochs = 4   # enough\nseed = 1\n\n[gate]\nmargin = 0.02\n"
    before = before.replace("[train]", "[data]\n" + _data() + "\n[train]")

    after = rewritten(before, {"epochs": 6, "dropout": 0.1}, "m.toml")

    lines = difference(before, after, "m").splitlines()
    assert lines[:2] == ["--- m.toml", "+++ m.tuned.toml"]
    assert [line for line in lines[2:] if line[0] in "+-"] == [
        "-epochs = 4   # enough",
        "+epochs = 6   # enough",
        "+dropout = 0.1",
    ]


def test_a_key_that_has_no_value_any_more_goes_with_its_line() -> None:
    before = "[model]\nname = 'm'\n[data]\n" + _data() + "\n[train]\nepochs = 4  # enough\nseed = 1\n"

    after = rewritten(before, {"epochs": None, "dropout": None, "batch_size": 512}, "m.toml")

    lines = difference(before, after, "m").splitlines()[2:]
    assert [line for line in lines if line[0] in "+-"] == ["-epochs = 4  # enough", "+batch_size = 512"]


def test_a_spec_without_the_table_gets_one() -> None:
    before = "[model]\nname = 'm'\n[data]\n" + _data()

    assert rewritten(before, {"epochs": 6}, "m.toml").endswith("\n\n[train]\nepochs = 6\n")


def test_a_layout_that_cannot_be_changed_line_by_line_is_refused() -> None:
    before = "train = {epochs = 4}\n[model]\nname = 'm'\n[data]\n" + _data()

    with pytest.raises(SpecError, match="cannot be written into its \\[train\\] table"):
        rewritten(before, {"epochs": 6}, "m.toml")


def _data() -> str:
    keys = ("domain", "examples", "event_time", "labels", "label", "feature_service")
    return "".join(f"{key} = 'x'\n" for key in keys)
