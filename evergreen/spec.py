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
from evergreen.types import Digest, Share, Task, Window

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class Table(BaseModel):
    """Base of every table of a model's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ModelConfig(Table):
    """What is this model? The `[model]` table."""

    name: Name
    """Also the name of the file, of the registered model and of its route."""
    task: Task = "binary"
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
    """Column of `labels`: 0 or 1; classes from 0 up, at most 1,000; or a number, as `[model].task` has it."""
    classes: tuple[str, ...] = ()
    """Names of the classes 0, 1, … of a multiclass label, as answers give them. Unset: their numbers, as many as the training
    rows have."""
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
    """At least this long between the end of one checkpoint and the next; 0 saves as soon as the one before is on the disk."""
    keep_checkpoints: PositiveInt = 2
    """Older ones are removed. With 2 or more a damaged one costs some steps and not the run."""
    seed: int = 0


class TuneConfig(Table):
    """Where does `tune` look for better values of `[train]`? The `[tune]` table.

    A key names one of `[train]`. Where it holds two numbers the search goes from one to the other; an empty list leaves the key
    as it is. The present values are always tried first.
    """

    trials: PositiveInt = 20
    """Trainings, the pruned ones included."""
    holdout_days: PositiveInt = 28
    """The days that judge the trials. They follow those that train and end where the gate's own holdout starts."""
    seed: int = 0
    """Of the search; a trial trains with `[train].seed`."""
    learning_rate: tuple[PositiveFloat, ...] = (5e-4, 1e-2)
    """On a logarithmic scale."""
    weight_decay: tuple[PositiveFloat, ...] = (1e-3, 1e-1)
    """On a logarithmic scale."""
    dropout: tuple[Share, ...] = (0.0, 0.5)
    input_noise: tuple[NonNegativeFloat, ...] = (0.0, 0.5)
    epochs: tuple[PositiveInt, ...] = (2, 8)
    hidden: tuple[tuple[PositiveInt, ...], ...] = ((128, 64), (256, 128), (512, 256))
    """One of these."""
    batch_size: tuple[PositiveInt, ...] = (512, 1024, 2048)
    """One of these."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for key in ("learning_rate", "weight_decay", "dropout", "input_noise", "epochs"):
            found = getattr(self, key)
            if found and (len(found) != 2 or found[0] > found[1]):
                raise ValueError(
                    f"{key} is {list(found)}: give the lowest and the highest value, or [] to leave it alone"
                )
        return self


class GateConfig(Table):
    """When is a candidate good enough? The `[gate]` table."""

    min_rows: PositiveInt = 1_000
    """Refuse to judge on fewer holdout rows than this."""
    min_days: PositiveInt = 3
    """Refuse to judge on fewer holdout days than this."""
    max_log_loss: PositiveFloat | None = None
    """Absolute, of a classification. Unset: 0.69 for two classes, where a coin has 0.693, and in that proportion to
    a blind guess's for more."""
    min_auc: Share = 0.55
    """Absolute, of a classification; of more than two classes the mean over each against the others."""
    min_r2: Annotated[float, Field(le=1.0)] = 0.0
    """Absolute, of a regression: the share of the label's variance it explains; 0 is saying the mean of these very rows."""
    min_score_std: NonNegativeFloat = 0.01
    """Absolute: scores that spread less than this, or not at all, tell nothing apart. Of more than two classes the one whose
    probability spreads most counts; in a regression it is a share of the label's own standard deviation."""
    max_calibration_error: Share = 0.15
    """Absolute: refuse when the expected calibration error over 10 bins is above this beyond what the days' scatter
    explains (95%, one-sided). Of more than two classes it is the most likely one's; in a regression the bins are tenths of
    the rows by score, and it is in standard deviations of the label."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    """Of every comparison with the champion, one-sided: two models on the same rows, paired by day."""
    margin: NonNegativeFloat = 0.01
    """Non-inferiority: with that confidence the loss on the same rows rises by no more than this over the champion's. This and
    the other margins are in log loss; in a regression, whose loss is the squared error, they are shares of the loss they
    are compared with. A week of flights tells differences of about 0.006 apart; much less than that here refuses nearly
    everything."""
    superiority: bool = False
    """Also ask, with that confidence, that the loss falls."""
    max_auc_drop: Share | None = None
    """Also ask of a classification, with that confidence, that the AUC falls by no more than this. Unset: shown and decides
    nothing."""
    baseline_margin: NonNegativeFloat | None = None
    """Also ask, with that confidence, that the loss is no more than this above that of the best baseline trained on the same
    rows (logistic regression, and LightGBM where it is installed). Unset: shown and decides nothing."""
    max_slice_loss: NonNegativeFloat = 0.05
    """Refuse when a slice's loss rises by more than this margin over the champion's, and that it rises at all is proved with
    that confidence, all judged slices taken together (Holm)."""
    min_slice_rows: PositiveInt = 300
    """Slices with fewer rows are not judged."""
    max_artifact_mb: PositiveFloat | None = None
    """Absolute: of the artifact's files together. Unset: shown and decides nothing."""
    max_row_ms: PositiveFloat | None = None
    """Absolute: of scoring one row, at the 99th percentile, on the machine that judges. Unset: shown and decides nothing."""


class MonitorConfig(Table):
    """When has it rotted? The `[monitor]` table."""

    window_days: PositiveInt = 7
    min_label_share: Share = 0.8
    """Labelled figures of a window wait until this share of its outcomes is in."""
    min_labels: PositiveInt = 500
    """and until there are this many."""
    max_calibration_gap: PositiveFloat = 0.06
    """Alarm when the mean score is further than this from the share that came true: of more than two classes, for any of
    them; in a regression from the mean label, in standard deviations of the window's labels."""
    max_log_loss_rise: PositiveFloat | None = None
    """Alarm when the log loss is this much above the champion's own at its gate; in a regression, the squared error by this
    share of it. Unset: shown and starts nothing, since a log loss also rises and falls with the share of ones."""
    max_age_days: PositiveInt = 56
    """Alarm when the champion's newest training row is older than this."""
    max_drift_share: Share | None = None
    """Alarm when this share of the features drifts. Unset: drift is shown and starts nothing."""
    block_days: PositiveInt = 1
    """Days that are exchanged together when it is asked whether a distance is more than chance. Longer where days resemble
    their neighbours; with few blocks nothing can be told."""
    drift_level: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05
    """Share of false discoveries among the features that are said to have drifted."""
    min_probe_gain: NonNegativeFloat | None = None
    """Alarm when the champion's scores, recalibrated on the windows before, would have had a log loss lower by this in the
    window, with `probe_confidence`: what a fresh model would gain at least. Unset: shown and starts nothing."""
    probe_confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of that gain, one-sided, days being the sample."""
    persistence: PositiveInt = 1
    """Windows that must alarm before a retrain is asked for, the newest among them,"""
    persistence_of: PositiveInt | None = None
    """out of this many newest ones. Unset: as many as `persistence`, which makes them windows in a row."""
    report_rows: PositiveInt = 2_000
    """Rows a side that are drawn for the Evidently report."""

    @model_validator(mode="after")
    def _persistent(self) -> Self:
        if self.persistence_of is not None and self.persistence_of < self.persistence:
            raise ValueError(
                f"persistence_of is {self.persistence_of}, but persistence asks for {self.persistence} windows among them"
            )
        return self


class RetrainConfig(Table):
    """How often may it be retrained? The `[retrain]` table."""

    cooldown_days: NonNegativeFloat = 14
    """Between two retrains that alarms asked for; persons and schedules are not held back."""
    max_in_30_days: PositiveInt | None = None
    """Finished retrains in the 30 days before an ask, whoever asked for them, after which alarms and schedules must wait."""


class BacktestConfig(Table):
    """How is a policy tried on history? The `[backtest]` table."""

    epochs: PositiveInt = 1
    """A backtest trains a model a week of history, so each is cheaper than `[train]` asks for: one member, one rank,"""
    hidden: tuple[PositiveInt, ...] = (64,)
    """a smaller network,"""
    batch_size: PositiveInt = 1024
    """and no auxiliary label."""
    copies: PositiveInt = 20
    """Of history with shuffled days, in which every alarm is false."""
    weeks_per_false_alarm: PositiveInt = 26
    """The alarm budget: in so many windows at most one, upper bound of the interval included."""
    max_retrain_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    """The retrain budget: this share of the windows may end in one."""
    seed: int = 0
    """Of the shuffles and of random policies."""


class ReleaseConfig(Table):
    """How does a gated version take over? The `[release]` table."""

    steps: tuple[Share, ...] = (0.0, 0.05, 0.25, 0.5, 1.0)
    """Share of the traffic at each step; the last is 1. At 0 the challenger stands in the shadow: it scores what the champion
    answers. `[1.0]` alone gives a gated version everything at once (blue-green)."""
    approval: Literal["auto", "manual"] = "auto"
    """Manual: a version that passed waits for a person's yes in Prefect's UI before it takes part."""
    approval_hours: PositiveFloat = 24.0
    """How long it waits; no answer is a no."""
    shadow: bool = True
    """While a challenger is open both versions score every row, so that they are compared on the same rows. Costs the
    scoring twice; without it, and always where there are more than two classes, they are compared on the rows each
    answered, which takes a hundred times as many."""
    dwell_hours: NonNegativeFloat = 24
    """How long a step lasts at least."""
    min_rows: NonNegativeInt = 100
    """Answers the challenger must have given at a step."""
    max_latency_ms: PositiveFloat = 250.0
    """Roll back when the challenger's p99 is above."""
    max_error_share: Share = 0.001
    """Roll back when the challenger fails on more of the rows than this; the champion answers those."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Of the daily comparison on the same rows, over all looks of a release together."""
    max_proved_loss: NonNegativeFloat = 0.0
    """Roll back when it is proved with that confidence that the challenger's log loss rises by more than this, days as the
    unit. Two classes only."""
    max_live_loss: PositiveFloat = 0.25
    """Roll back when the challenger's loss on matured live rows is this much above the champion's: in log loss, or in
    a regression as a share of the champion's squared error."""
    min_live_labels: PositiveInt = 200
    """and at least this many outcomes are in for it."""

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.steps[:1] == (0.0,) and not self.shadow:
            raise ValueError(
                "steps begin in the shadow (0.0), but shadow = false: nothing would be asked of the challenger"
            )
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


CLASSIFICATION_KEYS = ("max_log_loss", "min_auc", "max_auc_drop")
REGRESSION_KEYS = ("min_r2",)


class ModelSpec(Table):
    """Everything Evergreen knows of one model."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig = TrainConfig()
    tune: TuneConfig = TuneConfig()
    gate: GateConfig = GateConfig()
    monitor: MonitorConfig = MonitorConfig()
    retrain: RetrainConfig = RetrainConfig()
    release: ReleaseConfig = ReleaseConfig()
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
        if idle:
            raise ValueError(f'{", ".join(idle)}: no use to [model].task = "{task}"; take it out')
        if classes and len(set(classes)) < max(len(classes), 2):
            raise ValueError(f"[data].classes needs two names at least and each once, not {list(classes)}")
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
    if not where:  # several tables do not fit together; the message names them
        return f"{source}: {fault['msg'].removeprefix('Value error, ')}"
    key = f"[{where[0]}]" + ("." + ".".join(where[1:]) if where[1:] else "")
    if fault["type"] == "extra_forbidden":
        table = ModelSpec.model_fields.get(where[0])
        fields = ModelSpec if len(where) == 1 else table.annotation if table else ModelSpec
        known = list(getattr(fields, "model_fields", {}))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"{source}: unknown key {key}; {hint}"
    return f"{source}: {key}: {fault['msg']} (got {fault.get('input')!r})"
