"""A model's file: `models/NAME.toml` → `ModelSpec`.

One table a concern; each table is a class here and its attribute docstrings are the documentation of its keys. Everything
but `[model]` and `[data]` has a default. An unknown key fails with the nearest known one.
To add a key, add an attribute with a docstring; to add a table, add a class and an attribute of `ModelSpec`.
"""

import difflib
import hashlib
import tomllib
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from evergreen.errors import SpecError, UnknownModel
from evergreen.types import Digest, Share, Window

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class Table(BaseModel):
    """Base of every table of a model's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ModelConfig(Table):
    """What is this model? The `[model]` table."""

    name: Name
    """Also the name of the file, of the registered model and of its route."""
    task: Literal["binary", "multiclass", "regression"] = "binary"
    """What is predicted: the probability that the label is 1, a probability for each class, or a number."""
    owner: str = "unowned"
    """Who is asked when it rots."""


class DataConfig(Table):
    """Where do its rows and labels come from? The `[data]` table."""

    domain: Name
    """Folder under `feature_repo/` whose `pipeline` makes the tables."""
    examples: Name
    """Table with one row a thing to predict: `example_id`, the entity keys, the request's columns, `event_time`."""
    event_time: str
    """Column of `examples` the lead is counted back from."""
    lead_minutes: NonNegativeInt = 0
    """How long before `event_time` the prediction is asked for."""
    labels: Name
    """Table with `example_id`, the label, and `event_timestamp`: when the label became known."""
    label: str
    """Column of `labels`: 0 or 1; classes from 0 up; or a number, as `[model].task` has it."""
    auxiliary_label: str | None = None
    """Numeric column of `labels` that training may learn from beside the label; see `[train].auxiliary_thresholds`."""
    feature_service: str
    """Feast feature service that names the model's features."""
    entity_features: tuple[str, ...] = ()
    """Entity keys that are model inputs themselves, as categories."""
    slices: tuple[str, ...] = ()
    """Columns whose values are judged one by one."""

    @property
    def lead(self) -> timedelta:
        """`lead_minutes` as a duration."""
        return timedelta(minutes=self.lead_minutes)


class TrainConfig(Table):
    """How is a candidate trained? The `[train]` table."""

    history_start: date | None = None
    """First day of the window, which grows; without it the window slides over `window_days`."""
    window_days: PositiveInt = 90
    """Length of a sliding window."""
    holdout_days: PositiveInt = 7
    """The last days of the window judge and do not train."""
    epochs: PositiveInt = 4
    batch_size: PositiveInt = 1024
    """Rows a step over all ranks together."""
    learning_rate: PositiveFloat = 2e-3
    weight_decay: NonNegativeFloat = 1e-2
    hidden: tuple[PositiveInt, ...] = (256, 128)
    dropout: Share = 0.3
    input_noise: NonNegativeFloat = 0.3
    """Standard deviation of Gaussian noise on the normalised numeric inputs while training."""
    embedding_bins: PositiveInt = 12
    """Bins of the piecewise-linear numeric embedding."""
    embedding_width: PositiveInt = 4
    """Outputs of that embedding a feature."""
    max_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    auxiliary_thresholds: tuple[float, ...] = ()
    """A further head a threshold learns whether `[data].auxiliary_label` is at least this; rows without one teach it nothing."""
    auxiliary_weight: NonNegativeFloat = 1.0
    """Of the mean loss of those heads beside the label's own."""
    members: PositiveInt = 1
    """Networks that learn side by side from different first weights and answer with their mean."""
    ranks: PositiveInt = 2
    """Processes of `torch.distributed`: gloo on CPUs, nccl on GPUs."""
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    """Every rank holds the whole model, or a shard of it."""
    accumulate: PositiveInt = 1
    """A rank computes its part of a batch in so many pieces: the same step in less memory."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of matrix products; weights, sums and losses stay in fp32."""
    compile: bool = False
    """`torch.compile` the network."""
    fused: bool = True
    """Use the optimizer's fused kernel."""
    abandon_margin: PositiveFloat | None = None
    """Give up when, after half of the epochs, the loss on the validation days is this much above the champion's on those of
    them it has not trained on. Unset: train to the end."""
    checkpoint_seconds: NonNegativeFloat = 5.0
    """At least this long between checkpoints; 0 saves after each step."""
    keep_checkpoints: PositiveInt = 2
    seed: int = 0


class GateConfig(Table):
    """When is a candidate good enough? The `[gate]` table."""

    min_rows: PositiveInt = 1_000
    """Refuse to judge on fewer holdout rows than this."""
    min_days: PositiveInt = 3
    """Refuse to judge on fewer holdout days than this."""
    max_log_loss: PositiveFloat = 0.69
    """Absolute: a coin has 0.693."""
    min_auc: Share = 0.55
    """Absolute."""
    min_score_std: NonNegativeFloat = 0.01
    """Absolute: scores that spread less than this, or not at all, tell nothing apart."""
    max_calibration_error: Share = 0.15
    """Absolute: refuse when the expected calibration error over 10 bins is above this beyond what the days' scatter
    explains (95%, one-sided)."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    """Of every comparison with the champion, one-sided: two models on the same rows, paired by day."""
    margin: NonNegativeFloat = 0.01
    """Non-inferiority: with that confidence the log loss on the same rows rises by no more than this over the champion's.
    A week of flights tells differences of about 0.006 apart; much less than that here refuses nearly everything."""
    superiority: bool = False
    """Also ask, with that confidence, that the log loss falls."""
    max_auc_drop: Share | None = None
    """Also ask, with that confidence, that the AUC falls by no more than this. Unset: shown and decides nothing."""
    baseline_margin: NonNegativeFloat | None = None
    """Also ask, with that confidence, that the loss is no more than this above that of the best baseline trained on the same
    rows (logistic regression, and LightGBM where it is installed). Unset: shown and decides nothing."""
    max_slice_loss: NonNegativeFloat = 0.05
    """Refuse when a slice's log loss rises by more than this over the champion's, and that it rises at all is proved with
    that confidence, all judged slices taken together (Holm)."""
    min_slice_rows: PositiveInt = 300
    """Slices with fewer rows are not judged."""


class MonitorConfig(Table):
    """When has it rotted? The `[monitor]` table."""

    window_days: PositiveInt = 7
    min_label_share: Share = 0.8
    """Labelled figures of a window wait until this share of its outcomes is in."""
    min_labels: PositiveInt = 500
    """and until there are this many."""
    max_calibration_gap: PositiveFloat = 0.06
    """Alarm when the mean score is further than this from the share that came true."""
    max_log_loss_rise: PositiveFloat | None = None
    """Alarm when the log loss is this much above the champion's own at its gate. Unset: shown and starts nothing, since a
    log loss also rises and falls with the share of ones."""
    max_age_days: PositiveInt = 56
    """Alarm when the champion's newest training row is older than this."""
    max_drift_share: Share | None = None
    """Alarm when this share of the features drifts. Unset: drift is shown and starts nothing."""
    persistence: PositiveInt = 1
    """Newest windows in a row that must alarm before a retrain is asked for."""
    report_rows: PositiveInt = 2_000
    """Rows a side that are drawn for the Evidently report."""


class RetrainConfig(Table):
    """How often may it be retrained? The `[retrain]` table."""

    cooldown_days: NonNegativeFloat = 14
    """Between two retrains that alarms asked for; persons and schedules are not held back."""


class ReleaseConfig(Table):
    """How does a gated version take over? The `[release]` table."""

    steps: tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...] = (0.1, 1.0)
    """Share of the traffic at each step; the last is 1."""
    dwell_hours: NonNegativeFloat = 24
    """How long a step lasts at least."""
    min_rows: NonNegativeInt = 100
    """Answers the challenger must have given at a step."""
    max_latency_ms: PositiveFloat = 250.0
    """Roll back when the challenger's p99 is above."""
    max_live_loss: PositiveFloat = 0.25
    """Roll back when the challenger's log loss on matured live rows is this much above the champion's."""
    min_live_labels: PositiveInt = 200
    """and at least this many outcomes are in for it."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not self.steps or list(self.steps) != sorted(set(self.steps)) or self.steps[-1] != 1.0:
            raise ValueError(f"steps {list(self.steps)} must rise and end at 1.0, for example [0.1, 0.5, 1.0]")
        return self


class ServeConfig(Table):
    """How does it answer? The `[serve]` table."""

    unknown_entity: Literal["defaults", "refuse"] = "defaults"
    """Answer a request whose entity the store has never seen from missing values, or refuse it with 404; counted either way."""
    max_rows: PositiveInt = 1_000
    """Rows of one request."""
    batch_rows: PositiveInt = 64
    """Concurrent requests are answered together, in batches of at most so many rows; one with more goes by itself."""
    queue_rows: PositiveInt = 2_000
    """Rows that may wait or be worked on in one process; what comes beyond is refused with 503 and `Retry-After`."""
    timeout_seconds: PositiveFloat = 10.0
    """A request that waited longer before its turn is refused the same way."""


class ModelSpec(Table):
    """Everything Evergreen knows of one model."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    gate: GateConfig = GateConfig()
    monitor: MonitorConfig = MonitorConfig()
    retrain: RetrainConfig = RetrainConfig()
    release: ReleaseConfig = ReleaseConfig()
    serve: ServeConfig = ServeConfig()

    @model_validator(mode="after")
    def _auxiliary(self) -> Self:
        if self.train.auxiliary_thresholds and self.data.auxiliary_label is None:
            raise ValueError(
                "[train].auxiliary_thresholds needs [data].auxiliary_label: the column they are compared with"
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
    key = f"[{where[0]}]" + ("." + ".".join(where[1:]) if where[1:] else "")
    if fault["type"] == "extra_forbidden":
        table = ModelSpec.model_fields.get(where[0])
        fields = ModelSpec if len(where) == 1 else table.annotation if table else ModelSpec
        known = list(getattr(fields, "model_fields", {}))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{source}: unknown key {key}; {hint}"
    return f"{source}: {key}: {fault['msg']} (got {fault.get('input')!r})"
