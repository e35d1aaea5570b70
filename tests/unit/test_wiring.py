"""What is asked of a domain's pipeline, and what is said where it does otherwise."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evergreen.errors import SpecError
from evergreen.settings import Settings
from evergreen.types import Arrivals, BuildReport, IngestReport
from evergreen.wiring import Pipeline, Wiring, reported
from tests.shop_history import shop_spec

NOON = datetime(2021, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Pipeline]:
    """The pipeline of a domain `shop` with this text, in a feature repo of its own."""

    def imported(text: str) -> Pipeline:
        repo = tmp_path / f"repo_{tmp_path.name}"
        (repo / "shop").mkdir(parents=True)
        (repo / "shop" / "pipeline.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        return Wiring(Settings(home=tmp_path, feature_repo=repo)).pipeline(shop_spec())

    return imported


def test_a_pipeline_that_lacks_a_step_is_refused_by_its_name(shop: Callable[[str], Pipeline]) -> None:
    with pytest.raises(SpecError, match=r"shop/pipeline\.py offers no build\(data, as_of\); every flow calls both"):
        shop("def ingest(data, as_of): ...")


def test_what_the_steps_are_asked_for_can_be_said_in_two_lines(shop: Callable[[str], Pipeline], tmp_path: Path) -> None:
    pipeline = shop(
        "from evergreen.types import Arrivals, BuildReport, IngestReport\n"
        "def ingest(data, as_of):\n"
        "    return IngestReport(until=as_of, tables={'orders': Arrivals(received=3, good=2, quarantined=1)})\n"
        "def build(data, as_of): return BuildReport(until=as_of, rows={'customers': 2})\n"
    )

    arrived = reported(IngestReport, pipeline.ingest(tmp_path, NOON), "ingest")
    built = reported(BuildReport, pipeline.build(tmp_path, NOON), "build")

    assert arrived.tables["orders"] == Arrivals(received=3, good=2, quarantined=1)
    assert built.rows == {"customers": 2}


@pytest.mark.parametrize("told", [None, {"rows": {}}])
def test_a_step_that_returns_something_else_is_told_what_is_asked_for(told: object) -> None:
    with pytest.raises(
        SpecError, match=r"shop: build returned (None|\{'rows'.*), but .*return BuildReport\(until=…, rows=…\)"
    ):
        reported(BuildReport, told, "shop: build")
