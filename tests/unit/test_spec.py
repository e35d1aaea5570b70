"""A model's file: what is accepted, and what a wrong one is told."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import SpecError, UnknownModel
from evergreen.settings import ROOT
from evergreen.spec import ModelSpec, TrainConfig, load_spec, parse_spec

SHORTEST = """
[model]
name = "churn"
[data]
domain = "shop"
examples = "customers"
event_time = "asked_at"
labels = "cancellations"
label = "cancelled"
feature_service = "churn"
"""


def a_raw_spec() -> dict[str, Any]:
    return tomllib.loads(SHORTEST)


def test_the_shortest_useful_spec_is_under_fifteen_lines() -> None:
    assert len(SHORTEST.strip().splitlines()) < 15
    assert parse_spec(a_raw_spec()).train.ranks == 2


def test_the_flagship_is_valid() -> None:
    assert load_spec(ROOT / "models" / "flight_delay.toml").data.lead == timedelta(hours=2)


@pytest.mark.parametrize(
    ("table", "key", "nearest"),
    [("train", "epoch", "epochs"), ("gate", "min_row", "min_rows"), ("release", "step", "steps")],
)
def test_an_unknown_key_is_told_the_nearest_known_one(table: str, key: str, nearest: str) -> None:
    with pytest.raises(SpecError, match=rf"unknown key \[{table}\]\.{key}; did you mean '{nearest}'\?"):
        parse_spec(a_raw_spec() | {table: {key: 1}})


def test_an_unknown_table_is_told_the_nearest_known_one() -> None:
    with pytest.raises(SpecError, match=r"unknown key \[monitors\]; did you mean 'monitor'\?"):
        parse_spec(a_raw_spec() | {"monitors": {}})


@pytest.mark.parametrize(
    ("task", "tables", "complaint"),
    [
        (
            "regression",
            {"gate": {"min_auc": 0.6, "max_log_loss": 0.5}},
            r"\[gate\].max_log_loss, \[gate\].min_auc: no use to",
        ),
        (
            "multiclass",
            {"gate": {"min_r2": 0.1}},
            r"\[gate\].min_r2: no use to \[model\].task = \"multiclass\"; take it out",
        ),
        ("binary", {"data": {"classes": ["no", "yes"]}}, r"\[data\].classes: no use to \[model\].task = \"binary\""),
        (
            "multiclass",
            {"data": {"classes": ["no", "no"]}},
            r"\[data\].classes needs two names at least and each once, not \['no', 'no'\]",
        ),
        (
            "multiclass",
            {"train": {"auxiliary_thresholds": [1.0]}},
            r"\[train\].auxiliary_thresholds needs \[data\].auxiliary_label",
        ),
    ],
)
def test_a_key_the_task_has_no_use_for_is_refused_by_name(
    task: str, tables: dict[str, dict[str, Any]], complaint: str
) -> None:
    raw = a_raw_spec()
    raw["model"]["task"] = task
    for table, keys in tables.items():
        raw[table] = raw.get(table, {}) | keys

    with pytest.raises(SpecError, match=r"^churn.toml: " + complaint):
        parse_spec(raw, "churn.toml")


def test_every_fault_is_named_at_once() -> None:
    raw = a_raw_spec() | {"train": {"epochs": 0, "rank": 2}}
    with pytest.raises(SpecError) as error:
        parse_spec(raw, "churn.toml")
    assert "[train].epochs" in str(error.value)
    assert "[train].rank; did you mean 'ranks'?" in str(error.value)


@pytest.mark.parametrize("steps", [[], [0.5], [0.5, 0.1, 1.0], [0.1, 0.1, 1.0], [-0.1, 1.0], [0.5, 1.5]])
def test_release_steps_rise_to_one(steps: list[float]) -> None:
    with pytest.raises(SpecError, match="steps"):
        parse_spec(a_raw_spec() | {"release": {"steps": steps}})


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(UnknownModel, match=r"did you mean 'flight_delay'\? Known models: \['flight_delay'"):
        load_spec(ROOT / "models" / "flight_dely.toml")


def test_a_file_that_is_not_toml_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_text("[model\n")
    with pytest.raises(SpecError, match=r"broken\.toml is not valid TOML"):
        load_spec(tmp_path / "broken.toml")


def test_the_file_and_the_model_have_one_name(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(SHORTEST)
    with pytest.raises(SpecError, match="make them equal"):
        load_spec(tmp_path / "other.toml")


def test_a_moment_before_history_is_refused() -> None:
    spec = parse_spec(a_raw_spec() | {"train": {"history_start": datetime(2013, 1, 1, tzinfo=UTC).date()}})
    with pytest.raises(SpecError, match="nothing to train on"):
        spec.training_window(datetime(2012, 12, 31, tzinfo=UTC))


@given(st.datetimes(datetime(2013, 2, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_holdout_is_the_end_of_the_window(as_of: datetime) -> None:
    spec = parse_spec(a_raw_spec())
    window = spec.training_window(as_of)
    holdout = spec.holdout(window)
    assert holdout.end == window.end == as_of
    assert window.start < holdout.start
    assert holdout.length == timedelta(days=spec.train.holdout_days)


def test_the_digest_changes_with_any_value_and_only_then() -> None:
    raw = a_raw_spec()
    assert parse_spec(raw).digest == parse_spec(raw | {"train": {"epochs": 4}}).digest
    assert parse_spec(raw).digest != parse_spec(raw | {"train": {"epochs": 5}}).digest


def test_every_key_is_documented() -> None:
    undocumented = [
        f"[{table}].{name}"
        for table, field in ModelSpec.model_fields.items()
        for name, key in getattr(field.annotation, "model_fields", {}).items()
        if not key.description and not (table == "tune" and name in TrainConfig.model_fields)  # a range of that key
    ]
    obvious = {"[train].epochs", "[train].learning_rate", "[train].weight_decay", "[train].hidden", "[train].dropout"}
    obvious |= {"[train].seed", "[train].keep_checkpoints", "[monitor].window_days"}
    assert set(undocumented) <= obvious


def test_a_rule_over_two_tables_is_told_by_the_names_of_both_keys() -> None:
    with pytest.raises(SpecError, match=r"^spec: .*\[train\]\.auxiliary_thresholds needs \[data\]\.auxiliary_label"):
        parse_spec(a_raw_spec() | {"train": {"auxiliary_thresholds": [10.0]}})
