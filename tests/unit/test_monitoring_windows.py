"""Which rows a check looks at."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evergreen.errors import DataError
from evergreen.monitoring.windows import (
    known_before,
    maturity,
    newest,
    newest_mature,
    rows_that_show,
    sample_by_day,
    searched,
)
from evergreen.spec import MonitorConfig
from evergreen.types import Window

MONDAY = datetime(2013, 4, 8, tzinfo=UTC)
CONFIG = MonitorConfig(window_days=7, min_label_share=0.8)


def served(
    days: int, per_day: int = 24, *, until: datetime = MONDAY, lag: timedelta = timedelta(hours=6)
) -> pd.DataFrame:
    """`per_day` answers on each of the `days` days before `until`, their outcomes `lag` later."""
    start = until - timedelta(days=days)
    at = pd.Series([start + timedelta(days=i / per_day) for i in range(days * per_day)]).dt.round("s")
    return pd.DataFrame(
        {
            "example_id": [f"e{i}" for i in range(len(at))],
            "event_timestamp": at.astype("datetime64[us, UTC]"),
            "label_timestamp": (at + lag).astype("datetime64[us, UTC]"),
        }
    )


def test_the_newest_window_is_whole_days_that_are_over() -> None:
    assert newest(MONDAY + timedelta(hours=15), CONFIG) == newest(MONDAY, CONFIG)
    assert newest(MONDAY, CONFIG) == Window(start=MONDAY - timedelta(days=7), end=MONDAY)


def test_what_is_known_later_does_not_count_as_labelled() -> None:
    frame = served(7)
    window = newest(MONDAY, CONFIG)

    counted = maturity(frame, window, MONDAY)

    # The outcomes of the last six hours are still out; one becomes known at this very moment.
    assert (counted.served, counted.labelled) == (7 * 24, 7 * 24 - 5)


def test_outcomes_before_a_window_are_no_early_ones_alone() -> None:
    # A tenth defaults, on any day of the week after the question; the others are known to have paid when it is over.
    frame = served(28, per_day=100)
    defaults = frame.index % 10 == 0
    late = pd.to_timedelta(np.where(defaults, (frame.index // 10) % 8, 7), "D")
    frame = frame.assign(label=defaults.astype(float), label_timestamp=frame["event_timestamp"] + late)
    start = MONDAY - timedelta(days=7)

    early = frame[(frame["event_timestamp"] < start) & (frame["label_timestamp"] < start)]
    known = known_before(frame, start)

    assert early["label"].mean() > 0.12
    assert known["label"].mean() == pytest.approx(0.1, abs=0.002)
    assert len(known) == 21 * 100
    assert known["label"].count() == pytest.approx(14 * 100, abs=2)
    nothing_in = frame.assign(label_timestamp=frame["label_timestamp"].where(frame["label"] > 1), label=np.nan)
    assert not known_before(nothing_in, start)["label"].notna().any()


def test_a_row_that_never_got_an_outcome_keeps_its_window_immature() -> None:
    frame = served(7)
    frame["label_timestamp"] = frame["label_timestamp"].where(frame.index % 2 == 0)

    assert maturity(frame, newest(MONDAY, CONFIG), MONDAY + timedelta(days=30)).share == 0.5
    assert newest_mature(frame, as_of=MONDAY, config=CONFIG) is None


def test_a_window_waits_until_its_labels_are_in() -> None:
    frame = served(28, lag=timedelta(days=3))

    window = newest_mature(frame, as_of=MONDAY, config=CONFIG)

    # 3 of 7 days lack labels at first; a window moved back by two has 6 of 7 of them.
    assert window == Window(start=MONDAY - timedelta(days=9), end=MONDAY - timedelta(days=2))


def test_a_window_without_answers_is_not_mature() -> None:
    assert newest_mature(served(7).head(0), as_of=MONDAY, config=CONFIG) is None


def test_answers_older_than_what_is_searched_are_not_looked_at() -> None:
    old = served(7, until=searched(MONDAY, CONFIG).start)

    assert newest_mature(old, as_of=MONDAY, config=CONFIG) is None


def test_rows_without_timestamps_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"\['label_timestamp'\]"):
        maturity(served(1).drop(columns="label_timestamp"), newest(MONDAY, CONFIG), MONDAY)


@given(lag_hours=st.integers(0, 600), share=st.floats(0.0, 1.0))
def test_a_mature_window_has_the_share_of_labels_that_was_asked_for(lag_hours: int, share: float) -> None:
    config = MonitorConfig(window_days=3, min_label_share=share)
    frame = served(20, per_day=4, lag=timedelta(hours=lag_hours))

    window = newest_mature(frame, as_of=MONDAY, config=config)

    if window is not None:
        assert maturity(frame, window, MONDAY).share >= share
        assert window.end <= MONDAY
        assert window.start >= searched(MONDAY, config).start


def test_a_small_frame_is_kept_whole() -> None:
    frame = served(2)
    assert sample_by_day(frame, 48, seed=1) is frame


@given(rows=st.integers(1, 200), seed=st.integers(0, 2**31), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_a_draw_has_the_rows_asked_for_and_every_days_share(rows: int, seed: int, sizes: list[int]) -> None:
    days = pd.DatetimeIndex([MONDAY + timedelta(days=i) for i, size in enumerate(sizes) for _ in range(size)])
    frame = pd.DataFrame({"example_id": [f"e{i}" for i in range(len(days))], "event_timestamp": days})

    drawn = sample_by_day(frame, rows, seed=seed)

    assert len(drawn) == min(rows, len(frame))
    assert drawn.index.is_monotonic_increasing
    before, after = (f["event_timestamp"].dt.floor("D").value_counts().sort_index() for f in (frame, drawn))
    expected = before * len(drawn) / len(frame)
    assert (after.reindex(before.index, fill_value=0) - expected).abs().max() < 1.0 + 1e-9


def test_a_draw_can_be_repeated_and_depends_on_the_seed_not_on_the_order() -> None:
    frame = served(7)
    shuffled = frame.sample(frac=1.0, random_state=np.random.default_rng(0))

    drawn = set(sample_by_day(frame, 50, seed=3)["example_id"])

    assert drawn == set(sample_by_day(shuffled, 50, seed=3)["example_id"])
    assert drawn != set(sample_by_day(frame, 50, seed=4)["example_id"])


def test_rows_of_other_versions_are_looked_at_where_they_show_all_that_the_champion_takes() -> None:
    frame = pd.DataFrame(
        {
            "version": [1, 1, 2, 2, 3, 3],
            "wind": [1.0, None, 2.0, 3.0, None, None],
            "rain": [None, 4.0, None, None, None, 5.0],
        }
    )

    shown = rows_that_show(frame, ("wind", "rain"), version=3)

    assert shown["version"].tolist() == [1, 1, 3, 3]  # 2 never logged rain; 3 is the champion, whose wind is missing
    assert rows_that_show(frame, ("wind", "snow"), version=3).empty
