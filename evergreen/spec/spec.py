"""All the tables of one model together, and how a file becomes them."""

import difflib
import hashlib
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import (
    ValidationError,
    model_validator,
)

from evergreen.errors import SpecError, UnknownModel
from evergreen.spec.gate import GateConfig
from evergreen.spec.model import DataConfig, ModelConfig
from evergreen.spec.monitor import BacktestConfig, MonitorConfig, RetrainConfig
from evergreen.spec.release import AbTestConfig, ReleaseConfig, ServeConfig
from evergreen.spec.remedy import RemedyConfig
from evergreen.spec.table import Table
from evergreen.spec.train import TrainConfig, TuneConfig
from evergreen.types import Digest, Remedy, Window

CLASSIFICATION_KEYS = ("max_log_loss", "min_auc", "max_auc_drop")
REGRESSION_KEYS = ("min_r2",)
FAIRNESS_OF_TWO_CLASSES = ("max_selection_gap", "max_true_positive_gap")


class ModelSpec(Table):
    """Everything Evergreen knows of one model."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    gate: GateConfig = GateConfig()
    monitor: MonitorConfig = MonitorConfig()
    retrain: RetrainConfig = RetrainConfig()
    remedy: RemedyConfig = RemedyConfig()
    release: ReleaseConfig = ReleaseConfig()
    ab_test: AbTestConfig = AbTestConfig()
    serve: ServeConfig = ServeConfig()
    backtest: BacktestConfig = BacktestConfig()

    @model_validator(mode="after")
    def _auxiliary(self) -> Self:
        if self.train.auxiliary_thresholds and self.data.auxiliary_label is None:
            raise ValueError(
                "[train].auxiliary_thresholds needs [data].auxiliary_label: the column they are compared with"
            )
        return self

    @model_validator(mode="after")
    def _of_its_task(self) -> Self:
        """A key that the task has no use for would be read by nobody."""
        task, classes = self.model.task, self.data.classes
        unread = CLASSIFICATION_KEYS if task == "regression" else REGRESSION_KEYS
        idle = [f"[gate].{key}" for key in unread if getattr(self.gate, key) != getattr(GateConfig(), key)]
        if classes and task != "multiclass":
            idle.append("[data].classes")
        if task == "multiclass" and self.train.teacher_share:
            idle.append("[train].teacher_share")
        if idle:
            raise ValueError(f'{", ".join(idle)}: no use to [model].task = "{task}"; take it out')
        if classes and len(set(classes)) < max(len(classes), 2):
            raise ValueError(f"[data].classes needs two names at least and each once, not {list(classes)}")
        return self

    @model_validator(mode="after")
    def _fairness(self) -> Self:
        """Its column is among the rows that judge, and its rates are told of two classes."""
        fairness = self.gate.fairness
        if fairness is None:
            return self
        if fairness.column not in self.data.slices:
            raise ValueError(
                f"[gate.fairness].column {fairness.column!r} is not one of [data].slices {list(self.data.slices)}; add it there"
            )
        idle = [key for key in FAIRNESS_OF_TWO_CLASSES if getattr(fairness, key) is not None]
        if idle and self.model.task != "binary":
            raise ValueError(
                f'[gate.fairness].{", ".join(idle)}: no use to [model].task = "{self.model.task}"; take it out'
            )
        return self

    @model_validator(mode="after")
    def _can_be_cured_so(self) -> Self:
        if self.model.task != "binary" and Remedy.RECALIBRATE in (self.remedy.first, self.remedy.routine):
            raise ValueError(
                f"[remedy] asks for recalibrate, which moves the scores of two classes; [model].task is "
                f"{self.model.task!r}. Begin with fine_tune."
            )
        if self.remedy.routine in (Remedy.RETRAIN, Remedy.SEARCH):
            raise ValueError(
                f"[remedy].routine is {self.remedy.routine}, which is no cheap remedy; use recalibrate or fine_tune, "
                "and [monitor].max_age_days or a schedule for retrains"
            )
        return self

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def digest(self) -> Digest:
        """Of the whole spec, defaults included."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @property
    def fine_tuning(self) -> "ModelSpec":
        """The spec as a fine-tune trains: `[remedy]`'s few epochs, at its low rate, from the labels alone."""
        rate = self.remedy.tune_rate_share * self.train.learning_rate
        update = {
            "epochs": self.remedy.tune_epochs,
            "learning_rate": rate,
            "abandon_margin": None,
            "teacher_share": 0.0,
        }
        return self.model_copy(update={"train": self.train.model_copy(update=update)})

    def training_window(self, as_of: datetime) -> Window:
        """Event times a training set made at `as_of` may hold, the holdout included."""
        if self.train.history_start is not None:
            start = datetime.combine(self.train.history_start, time(), UTC)
        else:
            start = as_of - timedelta(days=self.train.window_days)
        if as_of <= start:
            raise SpecError(
                f"as of {as_of.isoformat()} there is nothing to train on: [train].history_start is {start.date()}. "
                "Ask for a later moment or lower it in the model's file."
            )
        return Window(start=start, end=as_of)

    def holdout(self, window: Window) -> Window:
        """The last `[train].holdout_days` of a training window."""
        start = window.end - timedelta(days=self.train.holdout_days)
        if start <= window.start:
            raise SpecError(
                f"training window {window} is not longer than its holdout of {self.train.holdout_days} days. "
                "Ask for a later moment or lower [train].holdout_days in the model's file."
            )
        return Window(start=start, end=window.end)


def load_spec(path: Path) -> ModelSpec:
    """Read one model's file.

    Raises `UnknownModel` when there is no such file and `SpecError`, with one line a fault, when it is wrong.
    """
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.toml"))
        near = difflib.get_close_matches(path.stem, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UnknownModel(
            f"no model {path.stem!r}: there is no {path.name} in {path.parent.name}/; {hint}Known models: {known}"
        )
    try:
        raw = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path.name} is not valid TOML: {error}") from error
    return parse_spec(raw, path.name)


def parse_spec(raw: dict[str, Any], source: str = "spec") -> ModelSpec:
    """Validate a parsed TOML document; see `load_spec`."""
    try:
        spec = ModelSpec.model_validate(raw)
    except ValidationError as error:
        raise SpecError("\n".join(_explain(fault, source) for fault in error.errors())) from error
    if source.endswith(".toml") and spec.name != source.removesuffix(".toml"):
        raise SpecError(f"{source}: [model].name is {spec.name!r} but the file is named {source!r}; make them equal")
    return spec


def _explain(fault: Any, source: str) -> str:
    where = [str(part) for part in fault["loc"]]
    if not where:  # several tables do not fit together; the message names them
        return f"{source}: {fault['msg'].removeprefix('Value error, ')}"
    key = f"[{where[0]}]" + ("." + ".".join(where[1:]) if where[1:] else "")
    if fault["type"] == "extra_forbidden":
        known = _keys_of(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{source}: unknown key {key}; {hint}"
    return f"{source}: {key}: {fault['msg']} (got {fault.get('input')!r})"


def _keys_of(path: Sequence[str]) -> list[str]:
    """Of the table at `path`, which may be optional; of the whole spec where there is none."""
    table: Any = ModelSpec
    for name in path:
        field = table.model_fields.get(name)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        table = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Table)), None)
        if table is None:
            return []
    return list(table.model_fields)
