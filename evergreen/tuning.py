"""Better values for `[train]`: what may be tried, and the spec that results, as text a person can compare.

Pure. The search itself is `adapters/studies.py`; called by `tasks/tune.py`. To search another key of `[train]`, add it to
`TuneConfig` and, where it is not a plain number, to `encoded` and `decoded`.
"""

import difflib
import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evergreen.errors import SpecError, TrainingFailed
from evergreen.spec import ModelSpec, parse_spec
from evergreen.types import TrainingSet, Trial

Value = int | float | str
LOGARITHMIC = ("learning_rate", "weight_decay")
CHOICES = ("hidden", "batch_size")
RANGES = ("learning_rate", "weight_decay", "dropout", "input_noise", "epochs")


@dataclass(frozen=True)
class Axis:
    """One key that is searched: from `low` to `high`, or one of `choices`."""

    key: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    logarithmic: bool = False
    choices: tuple[Value, ...] = ()


def axes_of(spec: ModelSpec) -> tuple[Axis, ...]:
    """What `[tune]` lets vary, widened where the present value lies outside."""
    found = []
    for key in RANGES:
        bounds, now = getattr(spec.tune, key), getattr(spec.train, key)
        if bounds:
            logarithmic = key in LOGARITHMIC and now > 0
            low, high = min(bounds[0], now), max(bounds[1], now)
            found.append(Axis(key, low, high, whole=isinstance(now, int), logarithmic=logarithmic))
    for key in CHOICES:
        choices = getattr(spec.tune, key)
        if choices:
            every = {getattr(spec.train, key), *choices}  # in an order that does not tell which is the present one
            found.append(Axis(key, choices=tuple(encoded(value) for value in sorted(every))))
    return tuple(found)


def study_name(model: str, training_set: TrainingSet, axes: Sequence[Axis]) -> str:
    """By which a search is found again; one on other rows or along other axes is another."""
    digest = hashlib.sha256(repr(tuple(axes)).encode()).hexdigest()
    return f"{model} as of {training_set.as_of:%Y-%m-%d %H:%M}, rows {training_set.digest[7:19]}, axes {digest[:12]}"


def encoded(value: Any) -> Value:
    """A value as a database keeps it: `256-128` for layers."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else value


def decoded(key: str, value: Value) -> Any:
    """The value as a table has it."""
    if isinstance(value, str) and key not in CHOICES:
        return str(value)
    if key == "hidden":
        return tuple(int(width) for width in str(value).split("-"))
    if isinstance(value, float):
        return float(f"{value:.3g}")  # what a person would write, and what the trial really trains with
    return int(value)


def present(spec: ModelSpec) -> dict[str, Value]:
    """The values the spec has now, of what may vary."""
    return {axis.key: encoded(getattr(spec.train, axis.key)) for axis in axes_of(spec)}


def best_of(trials: Sequence[Trial], study: str) -> Trial:
    """The one with the lowest loss; raises `TrainingFailed` where none was complete."""
    complete = [trial for trial in trials if trial.state == "complete"]
    if not complete:
        why = next((trial.failure for trial in reversed(trials) if trial.failure), "its process was killed")
        raise TrainingFailed(
            f"every trial of the study {study!r} failed, {len(trials)} of them: there are no best values. The last to say why: "
            f"{why}\nMend that; then raise [tune].trials, or search as of another moment: this study has had its trials."
        )
    return min(complete, key=lambda trial: (trial.loss, trial.number))


def with_values(spec: ModelSpec, values: Mapping[str, Value]) -> ModelSpec:
    """The spec with other values in `[train]`."""
    train = spec.train.model_dump() | {key: decoded(key, value) for key, value in values.items()}
    return ModelSpec.model_validate(spec.model_dump() | {"train": train})


def rewritten(text: str, values: Mapping[str, Value | None], source: str, table: str = "train") -> str:
    """A spec's text with other values in one table; every other character, comments too, stays. None takes a key's line out.

    Raises `SpecError` where the text is written in a way that cannot be changed so.
    """
    lines = text.splitlines()
    start, end = _section(lines, table)
    for key, value in values.items():
        place = next((i for i in range(start, end) if re.match(rf"\s*{key}\s*=", lines[i])), None)
        if value is None:
            if place is not None:
                del lines[place]
                end -= 1
            continue
        line = f"{key} = {_toml(decoded(key, value))}"
        if place is None:
            lines.insert(end, line)
            end += 1
        else:
            comment = re.search(r"\s+#[^\"']*$", lines[place])
            lines[place] = line + (comment[0] if comment else "")
    changed = "\n".join(lines) + "\n"
    _check(text, changed, values, source, table)
    return changed


def difference(before: str, after: str, name: str, what: str = "tuned") -> str:
    """A unified diff; empty where the two are equal."""
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True), after.splitlines(keepends=True), f"{name}.toml", f"{name}.{what}.toml"
        )
    )


def _section(lines: list[str], table: str) -> tuple[int, int]:
    """First line of a table and the one after its last key; the table is added where there is none."""
    heads = [i for i, line in enumerate(lines) if re.match(r"\s*\[", line) and not line.lstrip().startswith("[[")]
    start = next((i for i in heads if re.match(rf"\s*\[{table}\]", lines[i])), None)
    if start is None:
        lines.extend(["", f"[{table}]"])
        return len(lines), len(lines)
    end = next((i for i in heads if i > start), len(lines))
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    return start + 1, end


def _check(before: str, after: str, values: Mapping[str, Value | None], source: str, table: str) -> None:
    try:
        wanted = tomllib.loads(before)
        kept = {key: value for key, value in wanted.get(table, {}).items() if key not in values}
        wanted[table] = kept | {key: decoded(key, value) for key, value in values.items() if value is not None}
        right = parse_spec(tomllib.loads(after)) == parse_spec(wanted)
    except tomllib.TOMLDecodeError:
        right = False
    if not right:
        raise SpecError(
            f"{source}: new values cannot be written into its [{table}] table, because of how that is laid out. "
            f"Write each key of it on a line of its own. The values are {dict(values)}"
        )


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, Sequence):
        return f"[{', '.join(map(str, value))}]"
    return repr(value)
