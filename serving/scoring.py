"""From rows to logged answers: the one path, over HTTP, in a replay and in a batch job.

Routes each row to a version, scores each version's rows as one batch, and hands every answer to the log. What is logged
is what was scored, cell by cell. Not here: HTTP (`routes.py`), loading (`loaded.py`), writing (`log_writer.py`).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evergreen.errors import DataError, OnlineStoreAway
from evergreen.spec import ModelSpec
from evergreen.types import Cell, Prediction
from serving.caches import PredictionCache, Said
from serving.cells import cells, listed, picked, typed
from serving.features import Examples, FeatureLookup, given, joined, refusal
from serving.ids import new_example_id, prediction_id
from serving.loaded import LoadedModel, Scoring
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.routing import Role, keys, roles

ROLES: tuple[Role, Role] = ("challenger", "champion")
"""In this order: where a challenger fails, the champion answers."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Question:
    """What one request asks of one model."""

    loaded: LoadedModel
    rows: Mapping[str, Sequence[Any]]
    """A column for each of `loaded.needs`; for each of `loaded.inputs` where it brings its features itself."""
    example_ids: Sequence[str | None]
    """One a row; None gets a new one."""
    as_of: datetime | None = None
    """None: when it is answered, which all such questions of a batch share."""
    brings_features: bool = False

    def __len__(self) -> int:
        return len(self.example_ids)


class Scorer:
    """Answers rows with the versions a model serves, and logs each answer."""

    def __init__(
        self,
        lookup: FeatureLookup,
        log: LogWriter,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._lookup = lookup
        self._log = log
        self._metrics = metrics
        self._caches: dict[str, PredictionCache] = {}

    def answer(self, questions: Sequence[Question]) -> list[list[Prediction] | Exception]:
        """Look features up online, score and log; never waits for the log. For each question one answer a row, in order.

        Questions about the same model as of the same moment are answered as one batch. One that cannot be answered has
        its reason in place of its answers (`UnknownEntity` where the spec refuses), and the others have theirs.
        """
        together: dict[tuple[int, datetime | None, bool], list[int]] = {}
        for number, question in enumerate(questions):
            key = (id(question.loaded), question.as_of, question.brings_features)
            together.setdefault(key, []).append(number)
        answers: list[list[Prediction] | Exception] = [[] for _ in questions]
        for numbers in together.values():
            said = self._answer_together([questions[number] for number in numbers])
            for number, answer in zip(numbers, said, strict=True):
                answers[number] = answer
        return answers

    def _answer_together(self, questions: Sequence[Question]) -> list[list[Prediction] | Exception]:
        loaded, started = questions[0].loaded, time.perf_counter()
        refusals: list[Exception | None]
        try:
            examples, spans = self._examples(questions)
            refusals = [refusal(loaded.spec, examples, span) for span in spans]
            if not any(refusals):
                predictions = self._score(loaded, examples, started, share_latency=False)
                self._log.record(predictions)
                return [predictions[span.start : span.stop] for span in spans]
        except OnlineStoreAway as error:  # for all of them, and none should wait for that again
            return [error] * len(questions)
        except Exception as error:  # of whichever of the questions; asked one by one the others are answered
            refusals = [error] if len(questions) == 1 else [None] * len(questions)
        return [
            refused or self._answer_together([question])[0]
            for question, refused in zip(questions, refusals, strict=True)
        ]

    def _examples(self, questions: Sequence[Question]) -> tuple[Examples, list[range]]:
        """The rows of all questions with their features, and which of them are whose."""
        first, as_of = questions[0], questions[0].as_of or self._clock()
        ids = [name or new_example_id() for question in questions for name in question.example_ids]
        rows = {name: [cell for one in questions for cell in one.rows[name]] for name in first.rows}
        ends = list(accumulate(len(question) for question in questions))
        spans = [range(end - len(question), end) for question, end in zip(questions, ends, strict=True)]
        if first.brings_features:
            return given(ids, rows, as_of), spans
        return self._lookup.look_up(first.loaded.spec, ids, rows, as_of), spans

    def answer_joined(
        self, loaded: LoadedModel, frame: pd.DataFrame, *, log_wait_seconds: float = 60.0
    ) -> list[Prediction]:
        """Score and log rows whose features `Features.historical` joined, each at its own `event_timestamp`.

        For bulk in process: waits for room in the log, and `latency_ms` is a row's share of the batch, since nobody
        waits for a row alone. Raises `DataError` when an input is not among the columns.
        """
        started = time.perf_counter()
        predictions = self._score(loaded, joined(frame), started, share_latency=True)
        self._log.record(predictions, wait_seconds=log_wait_seconds)
        return predictions

    def _score(
        self, loaded: LoadedModel, examples: Examples, started: float, *, share_latency: bool
    ) -> list[Prediction]:
        looked_up_seconds = time.perf_counter() - started
        named = keys(loaded.release, examples.example_ids, examples.columns)
        routed = roles(loaded.release, named)
        answers: dict[int, Prediction] = {}
        failed: dict[int, Beside] = {}
        for role in ROLES:
            where = [row for row, by in enumerate(routed) if by == role]
            if not where:
                continue
            begun = time.perf_counter()
            version = _version_of(loaded, role)
            try:
                cache = self._cache(loaded.spec)
                rows, said_of_it = score_rows(loaded.versions[version], version, examples, where, cache)
            except Exception as error:
                if role == "champion":
                    raise
                routed = ["champion"] * len(routed)
                if not loaded.spec.release.shadow:  # else it is asked once more beside the champion, and fails there
                    seconds = time.perf_counter() - begun
                    failed = dict.fromkeys(where, self._failed(loaded, version, where, seconds, error))
                continue
            # A version is charged for the lookup and its own scoring, not for the other version's.
            seconds = looked_up_seconds + time.perf_counter() - begun
            self._metrics.prediction_seconds.labels(loaded.spec.name, version).observe(seconds)
            self._metrics.rows.labels(loaded.spec.name, version, role).inc(len(where))
            rows_a_latency = len(where) if share_latency else 1
            latency_ms = 1000 * seconds / rows_a_latency
            beside = self._score_beside(loaded, role, examples, where)
            for place, (row, features, said) in enumerate(zip(where, rows, said_of_it, strict=True)):
                answer = _prediction(loaded, examples, row, version, role, said, features, latency_ms)
                if loaded.release.test is not None:
                    answer = answer.model_copy(update={"routed_by": named[row]})
                if (other := failed.get(row, beside)) is not None:
                    other_ms = 1000 * (looked_up_seconds + other.seconds) / rows_a_latency
                    answer = answer.model_copy(update=other.fields(place, other_ms))
                answers[row] = answer
        return [answers[row] for row in range(len(examples))]

    def _cache(self, spec: ModelSpec) -> PredictionCache | None:
        """What was said lately by the model's versions; None where its file keeps nothing."""
        if not (entries := spec.serve.prediction_cache_entries):
            return None
        if (kept := self._caches.get(spec.name)) is None or kept.entries != entries:
            kept = self._caches[spec.name] = PredictionCache(entries, self._metrics, spec.name)
        return kept

    def _score_beside(
        self, loaded: LoadedModel, role: Role, examples: Examples, where: Sequence[int]
    ) -> "Beside | None":
        """What the version that does not answer says of the rows; its failure is no failure of the answer."""
        other: Role = "champion" if role == "challenger" else "challenger"
        if loaded.release.challenger is None or not loaded.spec.release.shadow:
            return None
        version, begun = _version_of(loaded, other), time.perf_counter()
        try:
            said = score_rows(loaded.versions[version], version, examples, where, self._cache(loaded.spec))[1]
        except Exception as error:
            return self._failed(loaded, version, where, time.perf_counter() - begun, error)
        return Beside(version, said, time.perf_counter() - begun)

    def _failed(
        self, loaded: LoadedModel, version: int, where: Sequence[int], seconds: float, error: Exception
    ) -> "Beside":
        self._metrics.shadow_failures.labels(loaded.spec.name, version).inc(len(where))
        logger.warning("%s version %d failed beside the answer: %s", loaded.spec.name, version, error)
        return Beside(version, None, seconds)


@dataclass(frozen=True)
class Beside:
    """What the other version said of some rows."""

    version: int
    said: list[Said] | None
    """None: it failed."""
    seconds: float

    def fields(self, place: int, latency_ms: float) -> dict[str, Any]:
        """What an answer keeps of it."""
        score, probabilities = (None, None) if self.said is None else self.said[place]
        return {
            "shadow_version": self.version,
            "shadow_score": score,
            "shadow_probabilities": probabilities,
            "shadow_latency_ms": latency_ms,
        }


def _version_of(loaded: LoadedModel, role: Role) -> int:
    version = loaded.release.champion if role == "champion" else loaded.release.challenger
    assert version is not None, f"{loaded.release} routes to a {role} it does not have"
    return version


def score_rows(
    version: Scoring, number: int, examples: Examples, where: Sequence[int], cache: PredictionCache | None
) -> tuple[list[dict[str, Cell]], list[Said]]:
    """Some rows as version `number` takes them, cell by cell as they are logged, and what it says of each.

    Raises `DataError` when one of its inputs is not among the columns.
    """
    missing = [name for name in version.inputs if name not in examples.columns]
    if missing:
        raise DataError(f"the model's inputs {missing} are not among the columns {sorted(examples.columns)}")
    every = len(where) == len(examples)
    columns: dict[str, list[Any] | NDArray[Any]] = {}
    for name, kind in version.inputs.items():
        given = examples.columns[name] if every else picked(examples.columns[name], where)
        columns[name] = typed(given, kind) if isinstance(given, np.ndarray) else listed(given, kind)
    names = list(columns)
    rows = list(zip(*(cells(column) for column in columns.values()), strict=True))

    def score(some: Sequence[int] | None = None) -> list[Said]:
        asked = columns if some is None else {name: picked(column, some) for name, column in columns.items()}
        return _said(version.score(asked).tolist(), version.classes)

    said = score() if cache is None else cache.said(number, rows, score)
    return [dict(zip(names, row, strict=True)) for row in rows], said


def _said(scores: list[Any], classes: Sequence[str]) -> list[Said]:
    if not classes:
        return [(score, None) for score in scores]
    return [(max(row), dict(zip(classes, row, strict=True))) for row in scores]


def _prediction(
    loaded: LoadedModel,
    examples: Examples,
    row: int,
    version: int,
    role: Role,
    said: Said,
    features: dict[str, Cell],
    latency_ms: float,
) -> Prediction:
    example_id, moment = examples.example_ids[row], examples.moments[row]
    return Prediction(
        prediction_id=prediction_id(loaded.spec.name, example_id, moment, version, brought=examples.brought),
        model=loaded.spec.name,
        version=version,
        role=role,
        example_id=example_id,
        event_timestamp=moment,
        answered_at=datetime.now(UTC),
        score=said[0],
        probabilities=said[1],
        features=features,
        stale=examples.stale[row],
        latency_ms=latency_ms,
    )
