import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evergreen.adapters.database import migrate, open_engine
from evergreen.adapters.prediction_log import COLUMNS, OutcomeCounts, PredictionLog
from evergreen.errors import DataError
from tests.databases import database_url, engine, postgres_url, session
from tests.factories import DAY, HOUR, MAY, a_prediction, a_window


@pytest.fixture
def log(session: Session) -> PredictionLog:
    return PredictionLog(session)


def outcomes(*rows: tuple[str, int, datetime]) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows), columns=["example_id", "label", "label_timestamp"])
    return frame.astype({"label_timestamp": "datetime64[us, UTC]"})


def test_an_answer_recorded_twice_is_there_once(log: PredictionLog) -> None:
    first = log.record([a_prediction(0), a_prediction(1)])
    again = log.record([a_prediction(1), a_prediction(2)])

    assert (first, again) == (2, 1)
    assert list(log.frame("flight_delay", a_window(), MAY)["prediction_id"]) == ["p000000", "p000001", "p000002"]


def test_nothing_to_record_is_no_statement(log: PredictionLog) -> None:
    assert log.record([]) == 0


def test_a_window_holds_its_start_and_not_its_end(log: PredictionLog) -> None:
    window = a_window()
    log.record([a_prediction(0, at=window.start), a_prediction(1, at=window.end), a_prediction(2, at=MAY - DAY)])

    assert list(log.frame("flight_delay", window, window.end)["example_id"]) == ["e000000"]


def test_other_models_are_not_seen(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1, model="other")])
    log.record_outcomes("other", outcomes(("e000000", 1, MAY)))

    frame = log.frame("flight_delay", a_window(), MAY + DAY)

    assert list(frame["example_id"]) == ["e000000"]
    assert frame["label"].isna().all()


def test_outcomes_are_counted_by_what_was_known(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1), a_prediction(2)])
    log.record_outcomes("flight_delay", outcomes(("e000000", 1, MAY + HOUR), ("e000002", 0, MAY + DAY)))

    assert log.outcomes_since("flight_delay", MAY, MAY + 2 * HOUR) == 1
    assert log.outcomes_since("flight_delay", MAY, MAY + DAY) == 2
    assert log.outcomes_since("flight_delay", MAY + timedelta(minutes=1), MAY + DAY) == 1


def test_a_frame_tells_which_views_were_stale(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1).model_copy(update={"stale": ("weather", "tail")})])

    frame = log.frame("flight_delay", a_window(), MAY + DAY)

    assert frame["stale"].tolist() == [[], ["weather", "tail"]]


def test_a_label_shows_from_its_own_moment_on_and_never_before(log: PredictionLog) -> None:
    known = MAY + 5 * HOUR
    log.record([a_prediction(0)])
    log.record_outcomes("flight_delay", outcomes(("e000000", 1, known)))

    just_before = log.frame("flight_delay", a_window(), known - timedelta(microseconds=1))
    at_that_moment = log.frame("flight_delay", a_window(), known)

    assert just_before["label"].isna().all()
    assert just_before["label_timestamp"].isna().all()
    assert at_that_moment["label"].tolist() == [1.0]
    assert at_that_moment["label_timestamp"].tolist() == [pd.Timestamp(known)]


def test_a_correction_is_seen_from_its_own_moment_on(log: PredictionLog) -> None:
    log.record([a_prediction(0)])
    log.record_outcomes("flight_delay", outcomes(("e000000", 0, MAY + HOUR)))
    log.record_outcomes("flight_delay", outcomes(("e000000", 1, MAY + 3 * HOUR)))

    seen = [log.frame("flight_delay", a_window(), MAY + hour * HOUR)["label"].tolist() for hour in (1, 2, 3, 4)]

    assert seen == [[0.0], [0.0], [1.0], [1.0]]


def test_an_outcome_that_comes_before_its_prediction_is_kept_and_counted(log: PredictionLog) -> None:
    counts = log.record_outcomes("flight_delay", outcomes(("e000007", 1, MAY)))
    log.record([a_prediction(7)])

    assert counts == OutcomeCounts(new=1, repeated=0, unknown=1)
    assert log.frame("flight_delay", a_window(), MAY + DAY)["label"].tolist() == [1.0]


def test_outcomes_are_counted_as_new_repeated_and_unknown(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1)])
    log.record_outcomes("flight_delay", outcomes(("e000000", 1, MAY)))

    counts = log.record_outcomes(
        "flight_delay", outcomes(("e000000", 1, MAY), ("e000001", 0, MAY), ("nobody_asked", 0, MAY))
    )

    assert counts == OutcomeCounts(new=2, repeated=1, unknown=1)
    assert counts.kinds == ("repeated", "new", "unknown")


def test_each_outcome_is_told_what_became_of_it(log: PredictionLog) -> None:
    log.record([a_prediction(0)])
    log.record_outcomes("flight_delay", outcomes(("e000000", 1, MAY)))

    counts = log.record_outcomes(
        "flight_delay",
        outcomes(("e000000", 0, MAY), ("e000000", 0, MAY + HOUR), ("e000000", 0, MAY + HOUR), ("nobody_asked", 0, MAY)),
    )

    assert counts.kinds == ("conflicting", "correction", "repeated", "unknown")
    assert counts == OutcomeCounts(new=2, repeated=1, unknown=1, conflicting=1)
    assert log.frame("flight_delay", a_window(), MAY)["label"].tolist() == [1.0]  # the first stays
    assert log.frame("flight_delay", a_window(), MAY + HOUR)["label"].tolist() == [0.0]


def test_every_answer_about_an_example_gets_its_outcome(log: PredictionLog) -> None:
    log.record(
        [a_prediction(0, prediction_id=name, example_id="same", version=place) for place, name in enumerate("ab")]
    )
    log.record_outcomes("flight_delay", outcomes(("same", 1, MAY)))

    frame = log.frame("flight_delay", a_window(), MAY)

    assert frame[["version", "label"]].values.tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_a_frame_has_the_same_columns_and_types_with_rows_and_without(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1)])
    full = log.frame("flight_delay", a_window(), MAY)
    empty = log.frame("flight_delay", a_window(MAY + 30 * DAY), MAY)

    assert {name: str(full[name].dtype) for name in COLUMNS} == COLUMNS
    assert {name: str(empty[name].dtype) for name in COLUMNS} == COLUMNS
    assert list(full.columns) == [*COLUMNS, "temperature", "carrier"]
    assert len(empty) == 0


def test_missing_numbers_are_nan_and_missing_categories_none(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1, features={"temperature": None, "carrier": None})])

    frame = log.frame("flight_delay", a_window(), MAY)

    assert frame["temperature"].dtype == "float64"
    assert frame["temperature"].isna().tolist() == [False, True]
    assert frame["carrier"].tolist() == ["UA", None]


def test_a_feature_that_a_later_version_added_is_missing_in_earlier_answers(log: PredictionLog) -> None:
    log.record([a_prediction(0, features={"a": 1.0}), a_prediction(1, features={"a": 2.0, "b": 3.0})])

    frame = log.frame("flight_delay", a_window(), MAY)

    assert list(frame.columns) == [*COLUMNS, "a", "b"]
    assert frame["b"].isna().tolist() == [True, False]


def test_a_feature_named_like_a_column_of_the_log_is_an_error(log: PredictionLog) -> None:
    log.record([a_prediction(0, features={"score": 1.0})])

    with pytest.raises(DataError, match="'score'"):
        log.frame("flight_delay", a_window(), MAY)


def test_since_is_empty_where_nothing_can_have_been_asked_yet(log: PredictionLog) -> None:
    log.record([a_prediction(0)])

    assert len(log.since("flight_delay", MAY, MAY)) == 0
    assert len(log.since("flight_delay", MAY, MAY + HOUR)) == 1


def test_the_examples_that_were_answered_are_known(log: PredictionLog) -> None:
    log.record([a_prediction(0), a_prediction(1), a_prediction(2, at=MAY + 30 * DAY)])

    assert log.answered("flight_delay", a_window()) == {"e000000", "e000001"}


def test_what_waits_for_its_outcome_is_found_however_old_it_is_and_whatever_came_since(log: PredictionLog) -> None:
    log.record([a_prediction(0, at=MAY + HOUR), a_prediction(1, at=MAY), a_prediction(2, at=MAY - DAY, model="other")])
    log.record_outcomes("flight_delay", outcomes(("e000000", 0, MAY + 1000 * DAY)))

    waiting = log.waiting("flight_delay", MAY + DAY)

    assert waiting["example_id"].tolist() == ["e000001"]
    assert waiting["event_timestamp"].tolist() == [MAY]
    assert log.waiting("flight_delay", MAY).empty


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (pd.DataFrame({"example_id": ["e"], "label": [1]}), "lack"),
        (outcomes(("e", 2, MAY)), "0 or 1"),
        (pd.DataFrame({"example_id": ["e"], "label": [None], "label_timestamp": [MAY]}), "empty cells"),
        (pd.DataFrame({"example_id": ["e"], "label": [1], "label_timestamp": [pd.Timestamp(2013, 5, 1)]}), "time zone"),
    ],
    ids=["a column is missing", "a label is 2", "a label is missing", "no time zone"],
)
def test_outcomes_that_are_none_are_refused(session: Session, frame: pd.DataFrame, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        PredictionLog(session).record_outcomes("flight_delay", frame)


def test_outcomes_of_an_empty_batch_count_nothing(log: PredictionLog) -> None:
    assert log.record_outcomes("flight_delay", outcomes()) == OutcomeCounts(new=0, repeated=0, unknown=0)


def test_more_outcomes_than_a_statement_has_parameters_go_in(log: PredictionLog) -> None:
    many = 33_000
    frame = outcomes(*((f"e{number}", number % 2, MAY) for number in range(many)))

    first = log.record_outcomes("flight_delay", frame)
    again = log.record_outcomes("flight_delay", frame)

    assert first == OutcomeCounts(new=many, repeated=0, unknown=many)
    assert again == OutcomeCounts(new=0, repeated=many, unknown=0)


def test_what_is_rolled_back_was_never_recorded(log: PredictionLog, session: Session) -> None:
    log.record([a_prediction(0)])
    session.rollback()

    assert len(log.frame("flight_delay", a_window(), MAY)) == 0


def test_moments_survive_the_frame_to_the_microsecond(log: PredictionLog) -> None:
    moment = datetime(2013, 5, 1, 12, 0, 0, 1, tzinfo=UTC)
    log.record([a_prediction(0, at=moment)])

    assert log.frame("flight_delay", a_window(), MAY)["event_timestamp"].tolist() == [pd.Timestamp(moment)]


def test_a_draw_is_of_one_version_and_window_and_the_same_seed_draws_the_same(log: PredictionLog) -> None:
    window = a_window()
    log.record([a_prediction(n, at=MAY + n * HOUR) for n in range(40)])
    log.record([a_prediction(40, version=2), a_prediction(41, at=window.end), a_prediction(42, model="other")])

    count, drawn = log.draw("flight_delay", 1, window, 10, seed=3, as_of=window.end)
    _, again = log.draw("flight_delay", 1, window, 10, seed=3, as_of=window.end)
    _, other = log.draw("flight_delay", 1, window, 10, seed=4, as_of=window.end)
    _, whole = log.draw("flight_delay", 1, window, 100, seed=3, as_of=window.end)

    assert count == len(whole) == 40
    assert len(drawn) == 10
    assert drawn.equals(again)
    assert set(drawn["prediction_id"]) != set(other["prediction_id"])
    assert drawn["event_timestamp"].is_monotonic_increasing


def test_a_draw_of_nothing_is_empty(log: PredictionLog) -> None:
    count, drawn = log.draw("flight_delay", 1, a_window(), 10, seed=3, as_of=MAY)

    assert (count, len(drawn)) == (0, 0)
    assert list(drawn.columns) == list(COLUMNS)


def test_two_who_report_the_same_outcomes_in_different_orders_do_not_wait_for_each_other(engine: Engine) -> None:
    rows = [(f"e{number:06}", 1, MAY) for number in range(4_000)]
    begin = Barrier(2)

    def report(some: list[tuple[str, int, datetime]]) -> int:
        with Session(engine) as session, session.begin():
            reported = outcomes(*some)
            begin.wait(30)
            return PredictionLog(session).record_outcomes("flight_delay", reported).new

    with ThreadPoolExecutor(2) as pool:
        new = list(pool.map(report, (rows, rows[::-1])))

    assert sum(new) == len(rows)
