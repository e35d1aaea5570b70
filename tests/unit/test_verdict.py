import re
from html.parser import HTMLParser
from typing import Any

import pytest

from evergreen.gate import decide
from evergreen.spec import GateConfig
from evergreen.types import (
    Attribution,
    Cause,
    ColumnParity,
    Evaluation,
    FeatureImportance,
    Footprint,
    ModelVersion,
    Parity,
    ReliabilityBin,
    Verdict,
)
from evergreen.verdict import day_changes, render, summary
from evergreen.verdict.intervals import auc_interval, figure_rows, slice_changes
from tests.factories import MAY, a_digest, a_trained_model, a_window, an_evaluation, some_days, some_scores_of_numbers
from tests.unit.test_gate import by_day

VOID = {"meta", "br", "line", "rect", "circle", "polyline", "path", "i"}
ATTRIBUTION = Attribution(
    features=(
        FeatureImportance(feature="wind", rise=0.03, error=0.004),
        FeatureImportance(feature="<b>rain</b>", rise=0.01),
    ),
    rows=2_000,
    days=7,
    loss=0.5,
    seed=1,
)


class Balanced(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def a_verdict(evaluation: Evaluation | None = None, champion: Evaluation | None = None, **more: Any) -> Verdict:
    evaluation = evaluation or an_evaluation(log_loss=0.49, slices={"origin=JFK": 0.5})
    decision = decide(evaluation, champion, GateConfig())
    return Verdict(
        version=ModelVersion(
            model="flight_delay",
            version=4,
            uri="models:/flight_delay/4",
            run_id="r1",
            artifact=a_digest("a"),
            passed=decision.passed,
            reasons=decision.reasons,
        ),
        owner="operations",
        cause=Cause.DECAY,
        candidate=a_trained_model(),
        decision=decision,
        evaluation=evaluation,
        champion=champion,
        champion_version=3 if champion else None,
        **more,
    )


def test_a_page_stands_alone_and_is_whole() -> None:
    bins = (
        ReliabilityBin(rows=4_000, mean_score=0.1, share=0.12),
        ReliabilityBin(rows=1_000, mean_score=0.6, share=0.5),
    )
    evaluation = an_evaluation(slices={"origin=JFK": 0.5}).model_copy(
        update={"reliability": bins, "attribution": ATTRIBUTION}
    )
    parity = Parity(
        version=3, window=a_window(), answers=900, rows=500, seed=1, mismatches=1,
        columns=(ColumnParity(column="wind", rows=1, example_id="e1", logged=1.0, offline=None),),
    )  # fmt: skip
    page = render(
        a_verdict(
            evaluation,
            an_evaluation(log_loss=0.51, slices={"origin=JFK": 0.52}),
            parity=parity,
            footprint=Footprint(size_bytes=1_500_000, p99_row_ms=0.7, rows=200),
        )
    )
    parser = Balanced()
    parser.feed(page)

    assert parser.open == []
    assert not re.search(r"(src|href)=|https?://|<script", page)
    for heading in (
        "Day by day", "Figures", "Checks", "Does it mean what it says?", "Slices", "What it leans on",
        "Is it served as it learns?", "Where it comes from",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page
    assert "&lt;b&gt;rain&lt;/b&gt;" in page
    table = page[page.index("<th >feature</th>") :]
    assert re.search(r"wind</td><td [^>]*>\+0\.0300</td><td [^>]*>0\.0040</td><td [^>]*>75%</td>", table)
    assert re.search(r"rain[^+]*</td><td [^>]*>\+0\.0100</td><td [^>]*>—</td><td [^>]*>25%</td>", table)
    assert "<b>rain</b>" not in page
    assert "nan" not in page.lower().replace("nanosecond", "")
    assert "this page and verdict.json repeat them and are not sealed" in page


def test_a_refusal_says_why_at_the_top() -> None:
    verdict = a_verdict(an_evaluation(log_loss=0.523), an_evaluation(log_loss=0.510))
    page = render(verdict)

    assert not verdict.decision.passed
    assert "version 4 was refused: the champion stays" in page
    assert page.index("Why it was refused") < page.index("Day by day")
    assert "may rise 0.0100" in page


def test_a_first_model_has_no_champion_to_stand_beside() -> None:
    page = render(a_verdict())

    assert "There was no champion to beat: log loss 0.4900 on 5,000 held-out rows of 7 days." in page
    assert "Day by day" not in page
    assert "Slices" not in page


def test_a_regression_and_one_day_are_told_without_what_they_lack() -> None:
    scores = some_days(some_scores_of_numbers(), 1)
    evaluation = an_evaluation().model_copy(update={"overall": scores, "days": 1, "slices": {}})
    page = render(a_verdict(evaluation, evaluation))

    assert "squared error" in page
    assert "AUC" not in page
    assert "Does it mean what it says?" not in page


def test_the_json_of_a_verdict_tells_the_same_verdict() -> None:
    verdict = a_verdict(champion=an_evaluation(slices={"origin=JFK": 0.5}))

    assert Verdict.model_validate_json(verdict.model_dump_json(indent=2)) == verdict


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ([-0.02, -0.03, -0.025], "5.0% lower than version 3's on JUDGED, and the days prove that it fell"),
        ([0.02, 0.03, 0.025], "5.0% higher than version 3's on JUDGED, and the days prove that it rose"),
        ([0.03, -0.03, 0.003], "0.2% higher than version 3's on JUDGED, which the days prove neither way"),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_days_prove(changes: list[float], sentence: str) -> None:
    def of(scores: Any) -> Evaluation:
        return an_evaluation(days=3, rows=3_000).model_copy(update={"overall": scores})

    told = summary(a_verdict(of(by_day(changes)), of(by_day([0.0] * 3))), "http://mlflow/verdict.html")

    assert sentence.replace("JUDGED", "the same 3,000 held-out rows of 3 days") in told
    assert "[The whole verdict](http://mlflow/verdict.html)" in told


def test_intervals_have_days_for_their_unit() -> None:
    mine = an_evaluation().model_copy(update={"overall": by_day([-0.02, 0.0, 0.01])})
    theirs = an_evaluation().model_copy(update={"overall": by_day([0.0, 0.0, 0.0])})

    loss = next(figure_rows(mine, theirs, 0.9))

    assert loss.change is not None
    assert loss.change.low is not None
    assert loss.change.high is not None
    assert loss.change.low < loss.change.value < 0 < loss.change.high
    assert day_changes(mine, theirs) == [
        ("1 May", 1_000, pytest.approx(-0.02)),
        ("2 May", 1_000, 0.0),
        ("3 May", 1_000, pytest.approx(0.01)),
    ]


def test_an_auc_without_pulls_has_no_interval_and_slices_come_worst_first() -> None:
    mine = an_evaluation(slices={"a=1": 0.4, "a=2": 0.6, "a=3": 0.5})
    theirs = an_evaluation(slices={"a=1": 0.5, "a=2": 0.5})

    assert auc_interval(mine.overall, 0.9).low is None
    assert [name for name, _, _ in slice_changes(mine, theirs, 0.9)] == ["a=2", "a=1"]
