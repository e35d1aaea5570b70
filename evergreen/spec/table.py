"""What every table of a spec is: closed, frozen."""

from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class Table(BaseModel):
    """Base of every table of a model's file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
