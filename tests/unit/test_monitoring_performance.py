"""What a version said beside what came true."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from evergreen.errors import DataError
from evergreen.evaluation import score_rows
from evergreen.monitoring.performance import live_figures, performance
from evergreen.spec import MonitorConfig
from evergreen.types import PerformanceReport, Window

START = datetime(2013, 4, 1, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(days=7))
CONFIG = MonitorConfig(window_days=7, min_label_share=0.8, min_labels=100)


def answers(rows: int = 700, *, version: int = 1, bias: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.05, 0.6, rows)
    return pd.DataFrame(
        {
            "event_timestamp": pd.date_range(START, periods=rows, freq=f"{7 * 86_400 // rows}s"),
            "version": version,
            "score": np.clip(chance + bias, 0.01, 0.99),
            "label": (rng.uniform(size=rows) < chance).astype(float),
            "shadow_version": np.nan,
            "shadow_score": np.nan,
            "shadow_latency_ms": np.nan,
        }
    )


def report(frame: pd.DataFrame, version: int = 1, config: MonitorConfig = CONFIG) -> PerformanceReport:
    return performance(frame, model="flight_delay", version=version, window=WINDOW, config=config)


def test_the_figures_are_those_of_evaluation_over_the_labelled_rows() -> None:
    frame = answers()
    frame.loc[::10, "label"] = np.nan
    labelled = frame.dropna(subset="label")

    found = report(frame)

    assert found.scores == score_rows(labelled["label"].to_numpy(dtype=int), labelled["score"].to_numpy())
    assert (found.served, found.labelled, found.days) == (700, 630, 7)


@pytest.mark.parametrize("bias", [0.2, -0.2])
def test_the_gap_is_signed_scores_too_high_are_above_zero(bias: float) -> None:
    frame = answers(bias=bias)

    gap = report(frame).calibration_gap

    assert gap == pytest.approx(frame["score"].mean() - frame["label"].mean(), abs=1e-9)
    assert gap is not None
    assert gap * bias > 0


def test_other_versions_and_other_times_are_left_out() -> None:
    other = answers(version=2, bias=0.3)
    outside = answers().assign(event_timestamp=lambda f: f["event_timestamp"] + timedelta(days=7))

    assert report(pd.concat([answers(), other, outside])) == report(answers())


def test_too_few_labels_are_a_report_without_figures() -> None:
    frame = answers()
    frame.loc[300:, "label"] = np.nan

    found = report(frame)

    assert (found.scores, found.calibration_gap) == (None, None)
    assert (found.served, found.labelled, found.days) == (700, 300, 3)


def test_a_high_share_of_few_labels_is_still_too_few() -> None:
    assert report(answers(99)).scores is None
    assert report(answers(100)).scores is not None


def test_a_window_in_which_the_version_answered_nothing_is_an_empty_report() -> None:
    found = report(answers(), version=7)

    assert (found.served, found.labelled, found.days, found.scores) == (0, 0, 0, None)
    assert found.label_share == 0.0


def test_an_empty_log_is_an_empty_report() -> None:
    assert report(answers().head(0)).served == 0


def test_one_outcome_only_has_no_auc_and_does_not_raise() -> None:
    scores = report(answers().assign(label=0.0)).scores

    assert scores is not None
    assert "auc" not in scores.figures
    assert "log_loss" in scores.figures


def test_missing_columns_are_named() -> None:
    with pytest.raises(DataError, match=r"\['score', 'label'\]"):
        report(answers().drop(columns=["score", "label"]))


def test_live_figures_are_those_of_one_version_with_its_slowest_percent() -> None:
    slow = [50.0] * 10 + [1.0] * 290

    found = live_figures(
        pd.concat([answers(100).assign(latency_ms=900.0), answers(300, version=2).assign(latency_ms=slow)]), 2
    )

    assert (found.version, found.rows, found.labelled) == (2, 300, 300)
    assert found.scores == report(answers(300, version=2), version=2).scores
    assert found.p99_latency_ms == 50.0


def test_live_figures_of_a_version_that_answered_nothing_are_empty() -> None:
    found = live_figures(answers().assign(latency_ms=1.0), 9)

    assert (found.rows, found.labelled, found.scores, found.p99_latency_ms) == (0, 0, None, 0.0)


def test_beyond_a_bound_the_figures_are_of_a_drawn_share_of_each_day_and_the_counts_of_all() -> None:
    frame = answers(20_000).assign(example_id=[f"e{n}" for n in range(20_000)])
    whole, drawn, again = (
        report(frame, config=CONFIG.model_copy(update={"figure_rows": rows})) for rows in (20_000, 5_000, 5_000)
    )

    assert drawn == again
    assert (drawn.served, drawn.labelled, drawn.days) == (whole.served, whole.labelled, whole.days)
    assert whole.figured == whole.labelled
    assert drawn.figured == pytest.approx(whole.labelled / 4, abs=10)
    for name, interval in whole.intervals.items():
        assert drawn.intervals[name].figure == pytest.approx(interval.figure, abs=0.03), name
    for one, other in zip(drawn.by_day, whole.by_day, strict=True):
        assert one.rows == pytest.approx(other.rows / 4, abs=10)
