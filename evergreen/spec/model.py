"""`[model]` and `[data]`: what is predicted, and from what."""

from datetime import timedelta

from pydantic import (
    NonNegativeInt,
)

from evergreen.spec.table import Name, Table
from evergreen.types import Task


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
