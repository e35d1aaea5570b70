"""The demo's page: whole, self-contained, and with the figures it was given."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.page import mean_log_losses, render
from evergreen.pages.chart import Line, Mark, line_chart, nice_ticks

START = datetime(2013, 4, 1, 18, tzinfo=UTC)
VOID = {"meta", "br"}
SERVED = [0.4672, 0.4451, 0.5102, 0.4213, 0.4388, 0.4021, 0.4466, 0.4790, 0.4402, 0.4135, 0.4711, 0.4603]
FROZEN = [0.4672, 0.4451, 0.5102, 0.4460, 0.4721, 0.4399, 0.4802, 0.5233, 0.4911, 0.4620, 0.5301, 0.5212]
GAPS = [-0.02, 0.03, 0.09, 0.01, 0.02, -0.01, 0.03, -0.07, 0.02, 0.01, -0.02, 0.03]


class Outline(HTMLParser):
    """Checks that tags close in order and gathers what is read and what is referred to."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def moment(week: float) -> str:
    return (START + timedelta(weeks=week)).isoformat()


def an_alarm(gap: float) -> dict[str, Any]:
    side = "too high" if gap > 0 else "too low"
    return {
        "trigger": "decay",
        "figure": abs(gap),
        "rule": "[monitor].max_calibration_gap = 0.06",
        "reason": f"calibration gap {abs(gap):.3f} (scores {side}), may be 0.060",
    }


def a_check(name: str, figure: float, *, passed: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "passed": passed,
        "figure": figure,
        "rule": f"[gate].{name}",
        "reason": f"{name} {figure:.3f}",
    }


def a_retrain(week: float, cause: str, verdict: str, version: int | None, via: str) -> dict[str, Any]:
    return {
        "as_of": moment(week),
        "cause": cause,
        "episode": f"flight_delay:v1:{moment(week)[:10]}",
        "verdict": verdict,
        "version": version,
        "via": via,
        "flow_run_id": "0190b6a4-6f6e-7c7e-9d0a-1f1a2b3c4d5e",
        "reasons": [f"{cause}: {verdict}"],
        "checks": [a_check("rows", 6012), a_check("slice carrier=F9", 0.061, passed=verdict == "passed")]
        if version
        else [],
        "candidate": {"log_loss": 0.4301, "auc": 0.7641} if version else None,
        "champion": {"log_loss": 0.4512, "auc": 0.7422} if version and version > 1 else None,
        "seconds": 21.4,
    }


def a_release(week: float, action: str, revision: int, champion: int, challenger: int | None = None) -> dict[str, Any]:
    return {
        "at": moment(week),
        "action": action,
        "revision": revision,
        "champion": champion,
        "challenger": challenger,
        "share": 0.1 if challenger else 0.0,
        "reason": "gate passed" if action == "start" else "24 hours at 10% without a fault",
    }


def a_week(number: int) -> dict[str, Any]:
    champion = 1 + (number > 2) + (number > 7)
    alarmed = number in (2, 7)
    return {
        "week": number + 1,
        "start": moment(number),
        "end": moment(number + 1),
        "flights": 6_400 + 17 * number,
        "labelled": 6_390 + 17 * number,
        "served": {"log_loss": SERVED[number], "auc": 0.77 - 0.004 * (number % 3), "calibration_gap": GAPS[number]},
        "frozen": {"log_loss": FROZEN[number], "auc": 0.76 - 0.006 * number, "calibration_gap": GAPS[number] + 0.02},
        "alarms": [an_alarm(GAPS[number])] if alarmed else [],
        "retrains": [{"cause": "decay", "verdict": "passed", "version": champion + 1, "reason": "the gate passed"}]
        if alarmed
        else [],
        "serving": {"champion": champion, "challenger": champion + 1 if alarmed else None, "share": 0.1 * alarmed},
    }


def a_demo(weeks: int = 12) -> dict[str, Any]:
    return {
        "model": "flight_delay",
        "generated_at": "2024-05-01T10:00:00+00:00",
        "span": {"start": moment(0), "end": moment(weeks)},
        "weeks": [a_week(number) for number in range(weeks)],
        "retrains": [
            a_retrain(0, "bootstrap", "passed", 1, "bootstrap"),
            a_retrain(3, "decay", "passed", 2, "event"),
            a_retrain(5, "decay", "suppressed", None, "event"),
            a_retrain(8, "decay", "refused", 3, "event"),
        ],
        "releases": [
            a_release(0, "start", 1, 1),
            a_release(3, "start", 2, 1, 2),
            a_release(3.15, "promote", 3, 2),
            a_release(8, "start", 4, 2, 3),
            a_release(8.15, "promote", 5, 3),
        ],
        "timings": {
            "history": 31.2,
            "stack": 12.9,
            "first_model": 24.5,
            "scoring": 61.0,
            "watch": 33.3,
            "total": 241.7,
        },
    }


def read(page: str) -> Outline:
    outline = Outline()
    outline.feed(page)
    outline.close()
    return outline


def test_the_page_is_well_formed() -> None:
    outline = read(render(a_demo()))

    assert outline.open == []
    assert outline.tags[:2] == ["html", "head"]


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = render(a_demo())

    assert read(page).references == []
    assert not re.search(r"https?://|url\(|@import|<script|<link|<iframe", page)


def test_every_weeks_figures_verdicts_and_reasons_are_on_it() -> None:
    demo = a_demo()

    text = " ".join(read(render(demo)).text)

    for week in demo["weeks"]:
        for who in ("served", "frozen"):
            assert f"{week[who]['log_loss']:.4f}" in text
            assert f"{week[who]['auc']:.3f}" in text
        assert f"{week['flights']:,}" in text
        for alarm in week["alarms"]:
            assert alarm["reason"] in text
    for retrain in demo["retrains"]:
        assert retrain["episode"] in text
        assert retrain["verdict"] in text
        assert all(check["reason"] in text for check in retrain["checks"])
    assert "61.0 s" in text
    assert "242 s in all" in text
    assert "2 of 3" in text, "of three trained versions; one ask was suppressed and trained nothing"


def test_what_comes_from_the_figures_cannot_become_markup() -> None:
    demo = a_demo()
    demo["weeks"][2]["alarms"][0]["reason"] = "<script>alert(1)</script>"
    demo["releases"][0]["reason"] = '"><b>bold</b>'

    page = render(demo)

    assert "<script>" not in page
    assert "<b>bold" not in page
    assert read(page).open == []


def test_the_summary_says_which_way_it_went() -> None:
    better, worse = a_demo(), a_demo()
    for week in worse["weeks"]:
        week["served"], week["frozen"] = week["frozen"], week["served"]

    means = mean_log_losses(better["weeks"])

    assert means is not None
    assert means[0] < means[1]
    assert f"{1 - means[0] / means[1]:.1%} lower than" in render(better)
    assert f"{means[1] / means[0] - 1:.1%} higher than" in render(worse)


def test_means_are_weighted_by_outcomes() -> None:
    weeks = [a_week(0) | {"labelled": 1}, a_week(11) | {"labelled": 3}]

    assert mean_log_losses(weeks) == pytest.approx(((SERVED[0] + 3 * SERVED[11]) / 4, (FROZEN[0] + 3 * FROZEN[11]) / 4))


def test_a_week_without_outcomes_is_a_gap_and_a_dash() -> None:
    demo = a_demo()
    nothing = {"log_loss": None, "auc": None, "calibration_gap": None}
    demo["weeks"][5] |= {"served": nothing, "frozen": nothing, "labelled": 0}

    page = render(demo)

    assert '<td class="n">—</td>' in page
    assert page.count('<polyline class="line served"') == 2 * 2 * 3, "two runs, two sizes, three charts"


def test_an_interrupted_story_has_a_page_too() -> None:
    demo = a_demo(0) | {"retrains": [], "releases": [], "timings": {}}
    demo["span"]["end"] = moment(1)

    outline = read(render(demo))

    assert outline.open == []
    assert "No outcome is in yet." in " ".join(outline.text)


def test_alarms_and_releases_stand_on_the_lines() -> None:
    page = render(a_demo())

    assert page.count('<path class="alarm" d="') == 2 * 6 + 1, "two alarms, three charts in two sizes, and the legend"
    assert page.count('<circle class="champion"') == 3 * 6 + 1
    assert page.count('<circle class="challenger"') == 2 * 6 + 1


def test_broken_data_is_marked_apart_from_the_alarms_of_its_week() -> None:
    demo = a_demo()
    week = next(week for week in demo["weeks"] if week["alarms"])
    week["alarms"].append(an_alarm(0.1) | {"trigger": "fault", "reason": "pressure: is missing"})

    page = render(demo)

    assert page.count('<rect class="fault"') == 1 * 6 + 1
    assert page.count('<path class="alarm" d="') == 2 * 6 + 1
    assert "broken data: pressure: is missing" in page


def test_the_better_figure_is_marked_and_a_tie_is_not() -> None:
    page = render(a_demo())

    assert '<td class="n better">0.4213</td><td class="n">0.4460</td>' in page
    assert '<td class="n">0.4672</td><td class="n">0.4672</td>' in page


@given(low=st.floats(-1e3, 1e3), reach=st.floats(0.0, 1e3))
def test_ticks_are_round_and_cover_the_figures(low: float, reach: float) -> None:
    ticks = nice_ticks(low, low + reach)

    assert 2 <= len(ticks) <= 7
    assert ticks[0] <= low + 1e-6
    assert ticks[-1] >= low + reach - 1e-6
    assert list(ticks) == sorted(set(ticks))


@given(figures=st.lists(st.none() | st.floats(0.0, 2.0), min_size=1, max_size=40))
def test_nothing_is_drawn_outside_the_chart(figures: list[float | None]) -> None:
    weeks = [(START + timedelta(weeks=n), START + timedelta(weeks=n + 1)) for n in range(len(figures))]
    marks = [Mark(START - timedelta(days=3), "champion", "before the first week", "v1")]

    svg = line_chart("t", weeks, [Line("served", tuple(figures))], marks, width=420, height=270, digits=2)

    for x, y in re.findall(r'cx="(-?[\d.]+)" cy="(-?[\d.]+)"', svg):
        assert 0 <= float(x) <= 420
        assert 0 <= float(y) <= 270
