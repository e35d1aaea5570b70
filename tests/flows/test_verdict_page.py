"""A candidate's verdict as a page, and logged answers computed again, on real flights."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import select

from evergreen.adapters.feature_tables import build_training_set, read_examples
from evergreen.adapters.tables import PredictionRow
from evergreen.gate import decide
from evergreen.gate.parity import answers_hold
from evergreen.types import Cause, Verdict, Window
from evergreen.wiring import Wiring
from flows.materialize import materialize
from flows.retrain import retrain
from flows.score_batch import score_batch
from serving.scoring import Question
from tasks.gate import evaluate_champion
from tasks.parity import check_parity
from tasks.scoring import runtime
from tests.flow_worlds import FIRST
from tests.flows.test_flows import MODEL, artifacts_of

ASKED = FIRST + timedelta(days=1)
AS_OF = FIRST + timedelta(days=2)


def ask_online(wire: Wiring, moment: datetime, count: int) -> None:
    """Answer flights as a request does: features from the online store, as of a moment."""
    spec, serving = wire.spec(MODEL), runtime()
    serving.models.refresh()
    loaded = serving.models.named(MODEL)
    examples = read_examples(wire.settings.data, spec, Window(start=moment, end=moment + timedelta(hours=8)), moment)
    rows: dict[str, list[Any]] = {
        name: [cell.to_pydatetime() if isinstance(cell, pd.Timestamp) else cell for cell in examples[name].head(count)]
        for name in loaded.needs
    }
    (answers,) = serving.scorer.answer([Question(loaded, rows, examples["example_id"].head(count).tolist(), moment)])
    assert isinstance(answers, list), answers
    assert len(answers) == count
    assert serving.log.flush(30)


def alter_answers(wire: Wiring, count: int) -> set[str]:
    """Another temperature in the log than was served; the example ids."""
    with wire.records() as records:
        session = records.predictions._session
        rows = session.scalars(select(PredictionRow).order_by(PredictionRow.prediction_id).limit(count)).all()
        for row in rows:
            row.features = row.features | {"temperature": 5.0}
        return {row.example_id for row in rows}


@pytest.mark.slow
def test_a_verdict_has_its_page_and_answers_that_are_not_what_is_learnt_from_are_found(
    world: Wiring, tmp_path: Path
) -> None:
    score_batch(FIRST, FIRST + timedelta(hours=20), MODEL)
    materialize(MODEL, ASKED)
    ask_online(world, ASKED, 40)
    ask_online(
        world, ASKED + timedelta(minutes=16), 40
    )  # a newer snapshot is known, the online store has the older one

    outcome = retrain(MODEL, AS_OF, Cause.PERSON)

    assert outcome.version is not None
    run = outcome.version.run_id
    pages = {file.path for file in world.registry.client.list_artifacts(run, "verdict")}
    assert pages == {"verdict/verdict.html", "verdict/verdict.json"}
    record = Path(world.registry.client.download_artifacts(run, "verdict/verdict.json", str(tmp_path)))
    verdict = Verdict.model_validate_json(record.read_text())
    page = Path(world.registry.client.download_artifacts(run, "verdict/verdict.html", str(tmp_path))).read_text()
    assert f"version {outcome.version.version}" in page
    assert verdict.decision.passed == outcome.version.passed
    (unseen,) = [check for check in verdict.decision.checks if check.name == "champion_unseen"]
    assert unseen.passed
    shown = artifacts_of(outcome.request.request_id)
    assert "held-out rows" in str(shown["verdict"].data)
    assert "/artifacts/verdict/verdict.html" in str(shown["verdict-page"].data)
    assert all("data:image/png;base64," in str(shown[key].data) for key in ("day-by-day", "attribution"))

    parity = verdict.parity
    assert parity is not None
    assert (parity.mismatches, parity.wrong_scores, parity.unknown) == (0, 0, 0), parity
    assert parity.rows == 500 < parity.answers
    assert parity.behind > 0
    attribution = world.registry.evaluation(outcome.version).attribution
    assert attribution is not None
    assert set(attribution.shares) == set(verdict.candidate.training_set.features)
    assert attribution.features[0].rise > 0

    altered = alter_answers(world, 200)
    spec = world.spec(MODEL)
    found = check_parity.fn(
        spec.model_copy(update={"gate": spec.gate.model_copy(update={"parity_rows": 5_000})}), AS_OF
    )
    assert found is not None
    assert (found.mismatches, found.wrong_scores > 100) == (200, True)
    assert [(worst.column, worst.rows, worst.logged) for worst in found.columns] == [("temperature", 200, 5.0)]
    assert found.columns[0].example_id in altered
    assert found.example_id in altered
    (check,) = answers_hold(found, spec.gate)
    assert not check.passed
    assert "temperature in 200, as in" in check.reason


@pytest.mark.slow
def test_a_version_judged_again_keeps_the_page_of_the_judgement_that_is_sealed(world: Wiring, tmp_path: Path) -> None:
    again = retrain(MODEL, FIRST, Cause.PERSON)  # beside a champion now, itself; the first time there was none

    assert again.version is not None
    kept = world.registry.client.download_artifacts(again.version.run_id, "verdict/verdict.json", str(tmp_path))
    verdict = Verdict.model_validate_json(Path(kept).read_text())
    assert verdict.decision == world.registry.judgement(again.version)[2]
    assert verdict.champion is None


def test_as_of_a_day_before_the_champions_its_own_rows_would_judge_and_that_is_refused(world: Wiring) -> None:
    spec = world.spec(MODEL)
    earlier = FIRST - timedelta(days=1)
    training_set = build_training_set(world.settings.data, spec, world.features, earlier)

    champion = evaluate_champion.fn(spec, training_set)

    assert champion is not None
    (reason,) = decide(champion, champion, spec.gate).reasons
    assert "so it has learnt from 2 of the " in reason  # of both in part
