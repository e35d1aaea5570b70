"""The prediction log: what was served, by which version, and what came of it.

A repository over `predictions` and `outcomes`; the caller owns the transaction. Serving's log writer and batch scoring
record here; the watch, the roll-out and the demo read frames from here. It scores nothing and decides nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
from sqlalchemy import ColumnElement, and_, exc, exists, func, literal, select
from sqlalchemy.orm import Session, aliased

from evergreen.adapters.database import insert_new
from evergreen.adapters.tables import OutcomeRow, PredictionRow
from evergreen.errors import DataError
from evergreen.figures import LABELS, odd_labels
from evergreen.types import Prediction, Task, Window

CHUNK = 10_000
"""Example ids one lookup asks for; both databases take over 30,000 parameters a statement."""

COLUMNS = {
    "prediction_id": "object",
    "example_id": "object",
    "event_timestamp": "datetime64[us, UTC]",
    "version": "int64",
    "role": "object",
    "score": "float64",
    "probabilities": "object",
    "stale": "object",
    "latency_ms": "float64",
    "shadow_version": "float64",
    "shadow_score": "float64",
    "shadow_probabilities": "object",
    "shadow_latency_ms": "float64",
    "routed_by": "object",
    "label": "float64",
    "label_timestamp": "datetime64[us, UTC]",
}
"""What every frame starts with; one column a feature follows."""


OutcomeKind = Literal["new", "correction", "unknown", "repeated", "conflicting"]


@dataclass(frozen=True)
class OutcomeCounts:
    """What a batch of outcomes was."""

    new: int
    """Stored now, the unknown ones among them."""
    repeated: int
    """Already there: the same example and the same moment."""
    unknown: int
    """Of the new: no prediction was logged for the example. Kept; it joins one that comes later."""
    conflicting: int = 0
    """Another label for an example and moment that has one; the first stays."""
    kinds: tuple[OutcomeKind, ...] = field(default=(), compare=False)
    """What became of each, in order."""


class PredictionLog:
    """What was served, by which version, and what came of it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(self, predictions: Sequence[Prediction]) -> int:
        """Store answers; one that is there already (by `prediction_id`) is left as it is. Returns how many were new.

        1,000 answers of 40 features take about 20 ms on SQLite. Raises `DataError` where the database refuses one for what
        it holds, and whatever the driver raises where it does not answer.
        """
        return self.record_fields([vars(prediction) for prediction in predictions])

    def record_fields(self, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Like `record`, for the fields of a `Prediction` each."""
        try:
            return insert_new(self._session, PredictionRow, predictions)
        except (exc.DataError, exc.IntegrityError, OverflowError) as error:
            raise DataError(f"the prediction log does not take what an answer holds: {error}") from error

    def record_outcomes(self, model: str, outcomes: pd.DataFrame, task: Task = "binary") -> OutcomeCounts:
        """Store outcomes: columns `example_id`, `label` (one of the task's), `label_timestamp` (aware).

        The same outcome again changes nothing; one with a later `label_timestamp` is a correction, which frames as of
        an earlier moment do not see. Raises `DataError` when a column, a label or a time zone is missing.
        """
        _require_outcomes(outcomes, task)
        known = pd.DatetimeIndex(outcomes["label_timestamp"]).to_pydatetime()
        rows = [
            {"model": model, "example_id": example, "label": float(label), "label_timestamp": moment}
            for example, label, moment in zip(outcomes["example_id"], outcomes["label"], known, strict=True)
        ]
        stored = self._stored_outcomes(model, [row["example_id"] for row in rows])
        predicted = self._predicted(model, [row["example_id"] for row in rows])
        kinds = [_kind(row, stored, predicted) for row in rows]
        fresh = [row for row, kind in zip(rows, kinds, strict=True) if kind in ("new", "correction", "unknown")]
        # In one order whoever reports them: two that lock the same rows in different orders would wait for each other.
        fresh.sort(key=lambda row: (row["example_id"], row["label_timestamp"]))
        new = insert_new(self._session, OutcomeRow, fresh)
        conflicting = kinds.count("conflicting")
        return OutcomeCounts(
            new=new,
            repeated=len(rows) - new - conflicting,
            unknown=min(kinds.count("unknown"), new),
            conflicting=conflicting,
            kinds=tuple(kinds),
        )

    def frame(self, model: str, window: Window, as_of: datetime) -> pd.DataFrame:
        """What was asked in the window, oldest first, with the outcomes known at `as_of` (inclusive).

        One row a prediction: `COLUMNS` (label and its time are missing where not known yet), then one column a feature
        in the order they were logged: float64 with NaN for numbers, objects with None for categories.
        Raises `DataError` when a feature bears the name of one of `COLUMNS`.
        """
        asked = and_(PredictionRow.event_timestamp >= window.start, PredictionRow.event_timestamp < window.end)
        return self._frame(model, asked, as_of)

    def answers(self, model: str, window: Window, as_of: datetime) -> pd.DataFrame:
        """Like `frame` without the features, which are most of what a row weighs."""
        asked = and_(PredictionRow.event_timestamp >= window.start, PredictionRow.event_timestamp < window.end)
        return self._frame(model, asked, as_of, features=False)

    def since(self, model: str, start: datetime, as_of: datetime) -> pd.DataFrame:
        """Like `frame`, for `[start, as_of)`; empty when that is."""
        asked = and_(PredictionRow.event_timestamp >= start, PredictionRow.event_timestamp < as_of)
        return self._frame(model, asked, as_of)

    def outcomes_since(self, model: str, start: datetime, as_of: datetime) -> int:
        """How many examples asked about since `start` have an outcome that was known at `as_of`."""
        count = (
            select(func.count(func.distinct(PredictionRow.example_id)))
            .join(
                OutcomeRow,
                and_(
                    OutcomeRow.model == PredictionRow.model,
                    OutcomeRow.example_id == PredictionRow.example_id,
                    OutcomeRow.label_timestamp <= as_of,
                ),
            )
            .where(PredictionRow.model == model, PredictionRow.event_timestamp >= start)
        )
        return self._session.scalar(count) or 0

    def answered(self, model: str, window: Window) -> set[str]:
        """Example ids that were asked about in the window."""
        rows = select(PredictionRow.example_id).where(
            PredictionRow.model == model,
            PredictionRow.event_timestamp >= window.start,
            PredictionRow.event_timestamp < window.end,
        )
        return set(self._session.scalars(rows))

    def draw(
        self, model: str, version: int, window: Window, rows: int, *, seed: int, as_of: datetime
    ) -> tuple[int, pd.DataFrame]:
        """How many answers a version gave in the window, and at most `rows` of them, drawn by `seed`, as `frame` has them.

        The same log and seed give the same draw. `rows` is at most `CHUNK`.
        """
        answers = select(PredictionRow.prediction_id).where(
            PredictionRow.model == model,
            PredictionRow.version == version,
            PredictionRow.event_timestamp >= window.start,
            PredictionRow.event_timestamp < window.end,
        )
        ids = sorted(self._session.scalars(answers))
        drawn = np.random.default_rng(seed).permutation(len(ids))[: min(rows, CHUNK)]
        chosen = PredictionRow.prediction_id.in_([ids[place] for place in drawn])
        return len(ids), self._frame(model, chosen, as_of)

    def waiting(self, model: str, before: datetime) -> pd.DataFrame:
        """`example_id` and `event_timestamp` of what was asked before a moment and has no outcome yet, oldest first."""
        outcome = select(OutcomeRow.example_id).where(
            OutcomeRow.model == PredictionRow.model, OutcomeRow.example_id == PredictionRow.example_id
        )
        rows = (
            select(PredictionRow.example_id, PredictionRow.event_timestamp)
            .where(PredictionRow.model == model, PredictionRow.event_timestamp < before, ~outcome.exists())
            .order_by(PredictionRow.event_timestamp)
        )
        return pd.DataFrame(
            [tuple(row) for row in self._session.execute(rows)], columns=["example_id", "event_timestamp"]
        )

    def _frame(self, model: str, asked: ColumnElement[bool], as_of: datetime, *, features: bool = True) -> pd.DataFrame:
        later = aliased(OutcomeRow)
        known = and_(
            OutcomeRow.model == PredictionRow.model,
            OutcomeRow.example_id == PredictionRow.example_id,
            OutcomeRow.label_timestamp <= as_of,
        )
        corrected = exists().where(
            later.model == OutcomeRow.model,
            later.example_id == OutcomeRow.example_id,
            later.label_timestamp <= as_of,
            later.label_timestamp > OutcomeRow.label_timestamp,
        )
        columns = [getattr(OutcomeRow if name.startswith("label") else PredictionRow, name) for name in COLUMNS]
        query = (
            select(*columns, PredictionRow.features if features else literal(None))
            .outerjoin(OutcomeRow, and_(known, ~corrected))
            .where(PredictionRow.model == model, asked)
            .order_by(PredictionRow.event_timestamp, PredictionRow.prediction_id)
        )
        return _as_frame([tuple(row) for row in self._session.execute(query)])

    def _predicted(self, model: str, examples: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(examples), CHUNK):
            some = examples[start : start + CHUNK]
            rows = select(PredictionRow.example_id).where(
                PredictionRow.model == model, PredictionRow.example_id.in_(some)
            )
            found.update(self._session.scalars(rows))
        return found

    def _stored_outcomes(self, model: str, examples: Sequence[str]) -> dict[str, dict[datetime, Any]]:
        """Example → moment → label."""
        found: dict[str, dict[datetime, Any]] = {}
        for start in range(0, len(examples), CHUNK):
            some = examples[start : start + CHUNK]
            rows = select(OutcomeRow.example_id, OutcomeRow.label_timestamp, OutcomeRow.label).where(
                OutcomeRow.model == model, OutcomeRow.example_id.in_(some)
            )
            for example, known, label in self._session.execute(rows):
                found.setdefault(example, {})[known] = label
        return found


def _kind(row: dict[str, Any], stored: dict[str, dict[datetime, Any]], predicted: set[str]) -> OutcomeKind:
    """What an outcome is beside those before it, to which it is added."""
    known = stored.setdefault(row["example_id"], {})
    if row["label_timestamp"] in known:
        return "repeated" if known[row["label_timestamp"]] == row["label"] else "conflicting"
    corrects = bool(known)
    known[row["label_timestamp"]] = row["label"]
    if row["example_id"] not in predicted:
        return "unknown"
    return "correction" if corrects else "new"


def _require_outcomes(outcomes: pd.DataFrame, task: Task) -> None:
    missing = {"example_id", "label", "label_timestamp"} - set(outcomes.columns)
    if missing:
        raise DataError(f"outcomes lack {sorted(missing)}; they have {list(outcomes.columns)}")
    if outcomes[["example_id", "label", "label_timestamp"]].isna().any().any():
        raise DataError("outcomes have empty cells: an outcome is recorded once it is known, with its label and moment")
    labels = pd.to_numeric(outcomes["label"], errors="coerce").to_numpy(dtype="float64")
    odd = set(outcomes["label"][odd_labels(task, labels)].unique())
    if odd:
        raise DataError(f"labels must be {LABELS[task]}, not {sorted(map(str, odd))}")
    if len(outcomes) and not isinstance(outcomes["label_timestamp"].dtype, pd.DatetimeTZDtype):
        raise DataError(f"label_timestamp must be in a time zone, not {outcomes['label_timestamp'].dtype}")


def _as_frame(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    known = pd.DataFrame([row[:-1] for row in rows], columns=list(COLUMNS)).astype(COLUMNS)
    features = pd.DataFrame([row[-1] or {} for row in rows], index=known.index)
    clash = sorted(set(features.columns) & set(COLUMNS))
    if clash:
        raise DataError(f"features {clash} bear the names of the log's own columns; rename them in the feature views")
    return pd.concat([known, features], axis=1)
