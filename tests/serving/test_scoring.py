from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from evergreen.ab_test import plan
from evergreen.errors import DataError, OnlineStoreAway
from evergreen.monitoring.performance import live_figures
from evergreen.release import start_test
from evergreen.rollout import judge
from evergreen.settings import Settings
from evergreen.spec import AbTestConfig, ReleaseConfig
from evergreen.training.predictor import Predictor
from evergreen.types import Prediction, Release, Window
from evergreen.wiring import Wiring
from serving.carrier import stored
from serving.features import FeatureLookup
from serving.loaded import LoadedModel
from serving.log_writer import LogWriter
from serving.metrics import Metrics
from serving.scoring import Question, Scorer
from serving.spool import Spool
from tests.serving.serving_factories import NOON, a_spec, an_artifact, counted

INPUTS: dict[str, Literal["numeric", "categorical"]] = {"wind": "numeric", "delay": "numeric", "carrier": "categorical"}


@dataclass
class Bench:
    """A scorer in front of real tables, with two real versions."""

    tables: Wiring
    versions: dict[int, Predictor]
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.log = LogWriter(partial(stored, self.tables), Spool(self.tables.settings.spool), self.metrics)
        self.log.start()
        self.scorer = Scorer(FeatureLookup(self, self.metrics), self.log, self.metrics)

    def online(self, service: str, rows: Any, as_of: Any, cache: Any = None) -> Any:
        del service, rows, as_of, cache
        raise AssertionError("a joined frame brings its features; nothing is looked up")

    def model(self, name: str, share: float = 0.0, **serve: Any) -> LoadedModel:
        release = Release(
            model=name, champion=1, challenger=2 if share else None, challenger_share=share, changed_at=NOON
        )
        return LoadedModel(a_spec(name, serve=serve), release, self.versions, needs={})

    def logged(self, model: str) -> pd.DataFrame:
        assert self.log.flush()
        window = Window(start=NOON - timedelta(days=1), end=NOON + timedelta(days=1))
        with self.tables.records() as records:
            return records.predictions.frame(model, window, NOON)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    home: Path = tmp_path_factory.mktemp("home")
    versions = {}
    for number in (1, 2):
        digest = an_artifact(home / str(number), INPUTS, seed=number)
        versions[number] = Predictor.load(home / str(number), digest)
    bench = Bench(Wiring(Settings(home=home)), versions)
    yield bench
    bench.log.close()
    bench.tables.engine.dispose()


def a_frame(rows: int = 50) -> pd.DataFrame:
    wind = np.random.default_rng(7).normal(size=50)
    wind[3:5] = np.inf, np.nan
    return pd.DataFrame(
        {
            "example_id": [f"ride-{number}" for number in range(rows)],
            "event_timestamp": pd.date_range(NOON, periods=rows, freq="min").astype("datetime64[us, UTC]"),
            "wind": wind[:rows],
            "delay": pd.array([None if n % 5 == 0 else n for n in range(rows)], dtype="Int64"),
            "carrier": [(None, "UA", "DL", "ZZ")[n % 4] for n in range(rows)],
            "tip": range(rows),
        }
    )


def test_what_is_logged_is_what_was_answered(bench: Bench) -> None:
    answers = bench.scorer.answer_joined(bench.model("equal", share=0.5), a_frame())

    logged = bench.logged("equal").set_index("prediction_id")
    assert len(logged) == len(answers) == 50
    for answer in answers:
        row = logged.loc[answer.prediction_id]
        assert (row["example_id"], row["version"], row["role"]) == (answer.example_id, answer.version, answer.role)
        assert row["score"] == answer.score
        assert row["event_timestamp"] == answer.event_timestamp
        for name, cell in answer.features.items():
            assert pd.isna(row[name]) if cell is None else row[name] == cell


def test_answers_come_in_the_order_of_the_rows_whichever_version_gave_them(bench: Bench) -> None:
    frame = a_frame()

    answers = bench.scorer.answer_joined(bench.model("order", share=0.5), frame)

    assert [answer.example_id for answer in answers] == frame["example_id"].tolist()
    assert {answer.version for answer in answers} == {1, 2}
    assert {(answer.role, answer.version) for answer in answers} == {("champion", 1), ("challenger", 2)}


def test_each_row_has_the_score_its_version_gives_it_alone(bench: Bench) -> None:
    frame = a_frame()

    answers = bench.scorer.answer_joined(bench.model("alone", share=0.5), frame)

    for answer in answers:
        cells = {name: [cell] for name, cell in answer.features.items()}
        assert answer.score == pytest.approx(bench.versions[answer.version].score(cells)[0], abs=1e-6)


def test_what_is_missing_is_none_whichever_way_pandas_says_it(bench: Bench) -> None:
    first = {answer.example_id: answer for answer in bench.scorer.answer_joined(bench.model("missing"), a_frame(8))}

    assert first["ride-0"].features["delay"] is None  # pd.NA
    assert first["ride-0"].features["carrier"] is None  # None
    assert first["ride-3"].features["wind"] is None  # infinite
    assert first["ride-4"].features["wind"] is None  # NaN
    assert first["ride-6"].features["delay"] == 6.0


def test_only_the_models_inputs_are_logged(bench: Bench) -> None:
    answers = bench.scorer.answer_joined(bench.model("inputs"), a_frame(3))

    assert all(list(answer.features) == list(INPUTS) for answer in answers)


def test_numbers_as_categories_are_spelt_as_in_training(bench: Bench) -> None:
    spellings = pd.DataFrame({"carrier": [1, 1.0, "1"]}, dtype=object)
    frame = a_frame(3).assign(carrier=spellings["carrier"], wind=0.5, delay=1.0)

    answers = bench.scorer.answer_joined(bench.model("spelling"), frame)

    assert [answer.features["carrier"] for answer in answers] == ["1", "1", "1"]
    assert len({answer.score for answer in answers}) == 1


def test_asking_again_gives_the_same_predictions_and_logs_them_once(bench: Bench) -> None:
    model = bench.model("again", share=0.3)

    once, again = (bench.scorer.answer_joined(model, a_frame()) for _ in range(2))

    assert [one.prediction_id for one in once] == [one.prediction_id for one in again]
    assert len(bench.logged("again")) == 50


def test_an_input_that_is_not_in_the_frame_is_named(bench: Bench) -> None:
    with pytest.raises(DataError, match=r"inputs \['wind'\] are not among the columns"):
        bench.scorer.answer_joined(bench.model("absent"), a_frame().drop(columns="wind"))


def test_a_frame_without_moments_is_refused(bench: Bench) -> None:
    with pytest.raises(DataError, match="no column 'event_timestamp'"):
        bench.scorer.answer_joined(bench.model("absent"), a_frame().drop(columns="event_timestamp"))


@pytest.mark.parametrize("column", ["example_id", "event_timestamp"])
def test_rows_without_a_name_or_a_moment_are_refused(bench: Bench, column: str) -> None:
    frame = a_frame(5)
    frame[column] = frame[column].where(frame.index != 2)

    with pytest.raises(DataError, match=f"1 of 5 rows to score have no {column}"):
        bench.scorer.answer_joined(bench.model("nameless"), frame)


def test_an_empty_frame_has_no_answers(bench: Bench) -> None:
    assert bench.scorer.answer_joined(bench.model("empty"), a_frame().head(0)) == []


def test_both_versions_of_an_open_release_score_every_row_and_one_is_told(bench: Bench) -> None:
    answers = bench.scorer.answer_joined(bench.model("both", share=0.5), a_frame())

    for answer in answers:
        assert {answer.version, answer.shadow_version} == {1, 2}
        cells = {name: [cell] for name, cell in answer.features.items()}
        assert answer.shadow_version is not None
        assert answer.shadow_score == pytest.approx(bench.versions[answer.shadow_version].score(cells)[0], abs=1e-6)
    logged = bench.logged("both").set_index("prediction_id")
    assert logged.loc[answers[0].prediction_id, "shadow_score"] == answers[0].shadow_score
    assert logged["shadow_latency_ms"].gt(0).all()


def test_a_challenger_in_the_shadow_scores_what_the_champion_answers(bench: Bench) -> None:
    shadow = bench.model("shadow", share=0.5)
    shadow = replace(shadow, release=shadow.release.model_copy(update={"challenger_share": 0.0}))

    answers = bench.scorer.answer_joined(shadow, a_frame())

    assert {(answer.version, answer.role, answer.shadow_version) for answer in answers} == {(1, "champion", 2)}


def test_a_champion_alone_or_a_spec_without_shadow_scores_once(bench: Bench) -> None:
    alone, split = bench.model("once"), without_shadow(bench.model("split", share=0.5))

    for model in (alone, split):
        answers = bench.scorer.answer_joined(model, a_frame())
        assert {answer.shadow_version for answer in answers} == {None}


class Broken:
    """It loads, and cannot score."""

    inputs = INPUTS
    classes = ()

    def score(self, columns: Any) -> Any:
        raise RuntimeError(f"a kernel is missing for {len(columns)} columns")


def test_where_a_challenger_fails_the_champion_answers_and_the_failure_is_logged(bench: Bench) -> None:
    broken = bench.model("broken", share=0.5)
    broken = replace(broken, versions={1: bench.versions[1], 2: Broken()})

    answers = bench.scorer.answer_joined(broken, a_frame())

    assert [answer.version for answer in answers] == [1] * 50
    logged = bench.logged("broken")
    assert (logged["shadow_version"] == 2).all()
    assert logged["shadow_score"].isna().all()
    assert counted(bench.metrics, "shadow_failures_total", model="broken", version="2") == 50


def test_without_a_shadow_too_the_champion_answers_and_what_failed_takes_the_challenger_back(bench: Bench) -> None:
    broken = without_shadow(bench.model("unshadowed", share=0.5))
    healthy = {answer.example_id: answer.version for answer in bench.scorer.answer_joined(broken, a_frame())}
    broken = replace(broken, versions={1: bench.versions[1], 2: Broken()})
    again = a_frame().assign(event_timestamp=lambda rows: rows["event_timestamp"] + timedelta(hours=1))

    answers = bench.scorer.answer_joined(broken, again)

    asked = {name for name, version in healthy.items() if version == 2}
    assert [answer.version for answer in answers] == [1] * 50
    assert {answer.example_id for answer in answers if answer.shadow_version == 2} == asked  # and no other was asked
    assert all(answer.shadow_score is None for answer in answers)
    assert counted(bench.metrics, "shadow_failures_total", model="unshadowed", version="2") == len(asked)
    logged = bench.logged("unshadowed")
    figures = live_figures(logged, 2)
    assert (figures.rows, figures.failed) == (2 * len(asked), len(asked))
    config = ReleaseConfig(steps=(0.5, 1.0), shadow=False, min_rows=10, dwell_hours=0)
    decision = judge(broken.release, live_figures(logged, 1), figures, config, NOON + timedelta(days=3))
    assert (decision.action, "version 2 failed on" in decision.reasons[0]) == ("roll_back", True)


def without_shadow(model: LoadedModel) -> LoadedModel:
    release = model.spec.release.model_copy(update={"shadow": False})
    return replace(model, spec=model.spec.model_copy(update={"release": release}))


def test_rows_are_counted_by_version_and_role(bench: Bench) -> None:
    answers = bench.scorer.answer_joined(bench.model("rows", share=0.5), a_frame())

    challenger = sum(answer.role == "challenger" for answer in answers)
    assert counted(bench.metrics, "rows_total", model="rows", version="2", role="challenger") == challenger
    assert counted(bench.metrics, "rows_total", model="rows", version="1", role="champion") == 50 - challenger
    assert counted(bench.metrics, "prediction_seconds_count", model="rows", version="1") == 1


def test_an_answer_from_the_cache_is_a_prediction_like_any_other(bench: Bench) -> None:
    frame = a_frame()
    bench.scorer.answer_joined(bench.model("plain"), frame)
    kept = bench.model("kept", prediction_cache_entries=100)

    answers = [
        bench.scorer.answer_joined(kept, frame.assign(example_id=frame["example_id"] + suffix)) for suffix in ("", "-2")
    ]

    labels = {"cache": "predictions", "model": "kept"}
    assert counted(bench.metrics, "cache_lookups_total", **labels, result="hit") >= 50
    assert counted(bench.metrics, "cache_entries", **labels) <= 50
    assert [one.score for one in answers[1]] == [one.score for one in answers[0]]
    logged, plain = bench.logged("kept"), bench.logged("plain")
    assert len(logged) == 100
    for suffix in ("", "-2"):
        mine = logged.set_index("example_id").loc[[name + suffix for name in frame["example_id"]]]
        scores = plain.set_index("example_id").loc[frame["example_id"].tolist(), "score"].to_numpy()
        assert mine["score"].to_numpy() == pytest.approx(scores)
        assert mine["wind"].isna().sum() == 2


def test_after_a_swap_nothing_of_the_version_before_is_told(bench: Bench) -> None:
    rules = {"prediction_cache_entries": 100}
    before = bench.model("swapped", **rules)
    bench.scorer.answer_joined(before, a_frame())
    after = replace(before, release=before.release.model_copy(update={"champion": 2, "revision": 2}))

    swapped = bench.scorer.answer_joined(after, a_frame())

    other = bench.scorer.answer_joined(replace(bench.model("two"), release=after.release), a_frame())
    assert [one.score for one in swapped] == [one.score for one in other]
    assert {one.version for one in swapped} == {2}


def test_a_cache_that_the_file_does_not_ask_for_is_not_there(bench: Bench) -> None:
    bench.scorer.answer_joined(bench.model("none"), a_frame())

    assert counted(bench.metrics, "cache_entries", cache="predictions", model="none") == 0
    assert counted(bench.metrics, "cache_lookups_total", cache="predictions", model="none", result="miss") == 0


class Graded:
    """Three classes, and version 2 is the surer one."""

    inputs: Mapping[str, Literal["numeric", "categorical"]] = {"wind": "numeric"}
    classes = ("low", "middle", "high")

    def __init__(self, sure: float) -> None:
        self.sure = sure

    def score(self, columns: Mapping[str, Any]) -> NDArray[np.float64]:
        rest = (1.0 - self.sure) / 2
        return np.tile([rest, rest, self.sure], (len(columns["wind"]), 1))


def test_what_the_other_version_said_of_each_class_is_kept(bench: Bench) -> None:
    both = replace(bench.model("graded", share=0.5), versions={1: Graded(0.5), 2: Graded(0.8)})

    bench.scorer.answer_joined(both, a_frame())

    logged = bench.logged("graded")
    assert set(logged["version"]) == {1, 2}
    for version, probabilities, beside in zip(
        logged["version"], logged["probabilities"], logged["shadow_probabilities"], strict=True
    ):
        assert (probabilities["high"], beside["high"]) == ((0.5, 0.8) if version == 1 else (0.8, 0.5))
        assert list(beside) == ["low", "middle", "high"]


def test_in_an_ab_test_an_entity_meets_one_version_and_the_log_says_by_what(bench: Bench) -> None:
    free = bench.model("tested")
    test = plan(AbTestConfig(entity="carrier"), free.release, 2, NOON)
    tested = replace(free, release=start_test(free.release, version=2, share=0.5, test=test, at=NOON))

    bench.scorer.answer_joined(tested, a_frame())

    logged = bench.logged("tested")
    named = logged[logged["carrier"].notna()]
    assert set(named["routed_by"]) == {"UA", "DL", "ZZ"}
    assert named.groupby("routed_by")["version"].nunique().max() == 1
    unnamed = logged[logged["carrier"].isna()]
    assert (unnamed["routed_by"] == unnamed["example_id"]).all()
    assert set(unnamed["version"]) == {1, 2}
    assert bench.logged("equal")["routed_by"].isna().all()


class AwayStore:
    """An online store that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def online(self, service: str, rows: Any, as_of: Any, cache: Any = None) -> Any:
        del service, rows, as_of, cache
        self.asked += 1
        raise OnlineStoreAway("the online store does not answer")


def test_who_asks_together_waits_once_for_a_store_that_is_away(bench: Bench) -> None:
    store, loaded = AwayStore(), bench.model("away")
    scorer = Scorer(FeatureLookup(store, bench.metrics), bench.log, bench.metrics)
    questions = [Question(loaded, {"wind": [1.0]}, [f"ride-{number}"]) for number in range(3)]

    answers = scorer.answer(questions)

    assert [type(answer) for answer in answers] == [OnlineStoreAway] * 3
    assert store.asked == 1
