"""What every type is made of: closed, frozen facts, moments in UTC, windows, tasks, causes."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)


def in_utc(moment: datetime) -> datetime:
    """An aware moment in UTC; raises `ValueError` for one that cannot be counted with."""
    with suppress(OverflowError):  # in another zone the last day of year 9999 is in year 10000
        moment = moment.astimezone(UTC)
        if 1900 <= moment.year <= 2200:  # the day before or after must be a date too, and count in nanoseconds
            return moment
    raise ValueError(f"should be a moment between the years 1900 and 2200, not {moment.isoformat()}")


Utc = Annotated[AwareDatetime, AfterValidator(in_utc)]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Cell = float | str | None
"""One feature value as it travels: a number, a category, or missing."""
Task = Literal["binary", "multiclass", "regression"]
"""What a model predicts: the probability that its label is 1, a probability for each class, or a number."""


class LossName(NamedTuple):
    """How the loss of a task's rows is called."""

    figure: str
    """Its mean's name among the figures."""
    words: str


LOSS_NAMES: dict[Task, LossName] = {
    "binary": LossName("log_loss", "log loss"),
    "multiclass": LossName("log_loss", "log loss"),
    "regression": LossName("mse", "squared error"),
}


class Fact(BaseModel):
    """Base of every type here."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Cause(StrEnum):
    """Why a retrain was asked for."""

    BOOTSTRAP = "bootstrap"
    SCHEDULE = "schedule"
    DRIFT = "drift"
    DECAY = "decay"
    AGE = "age"
    VOLUME = "volume"
    FAULT = "fault"
    """Never asks: alarms of this cause say that the data is broken, and hold retrains back."""
    PERSON = "person"


class Window(Fact):
    """`[start, end)` in UTC."""

    start: Utc
    end: Utc

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"window ends at {self.end.isoformat()}, not after its start {self.start.isoformat()}")
        return self

    def __str__(self) -> str:
        return f"[{self.start:%Y-%m-%d %H:%M}, {self.end:%Y-%m-%d %H:%M})"

    def __contains__(self, moment: datetime) -> bool:
        return self.start <= moment < self.end

    @property
    def length(self) -> timedelta:
        """From start to end."""
        return self.end - self.start
