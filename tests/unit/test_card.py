from evergreen.card import model_card
from evergreen.settings import ROOT
from evergreen.spec import load_spec
from evergreen.types import Attribution, Cause, Evaluation, FeatureImportance
from tests.factories import a_gate_decision, a_trained_model, an_evaluation, some_scores

SPEC = load_spec(ROOT / "models" / "flight_delay.toml")


def card(evaluation: Evaluation, champion: Evaluation | None = None, *, passed: bool = True) -> str:
    return model_card(SPEC, a_trained_model(), evaluation, champion, a_gate_decision(passed=passed), Cause.DECAY)


def test_it_says_what_the_version_is_and_how_to_make_it_again() -> None:
    told = card(an_evaluation())

    assert "# flight_delay as of 2013-05-01 00:00 UTC" in told
    assert "A binary model that passed its gate. Owner: operations. Asked for by: decay." in told
    assert "18,000 rows of 2013-01-01 to 2013-04-24" in told
    for known in (a_trained_model().digest, a_trained_model().spec_digest, "0123456789ab", "20130101"):
        assert known in told


def test_figures_stand_beside_the_champions_or_beside_nothing() -> None:
    assert "| log loss | 0.5 | 0.51 |" in card(an_evaluation(), an_evaluation(log_loss=0.51))
    assert "| log loss | 0.5 | — |" in card(an_evaluation())


def test_the_weakest_slices_come_first_and_small_ones_are_left_out() -> None:
    slices = {f"carrier={name}": 0.4 + 0.01 * place for place, name in enumerate("ABCDEFG")}
    told = card(an_evaluation(slices=slices | {"carrier=tiny": some_scores(99, log_loss=9.0)}))

    shown = [line.split(" | ")[0] for line in told.splitlines() if line.startswith("| carrier=")]
    assert shown == [f"| carrier={name}" for name in "GFEDC"]


def test_a_refusal_says_so_with_its_reason() -> None:
    told = card(an_evaluation(), passed=False)

    assert "that **was refused**" in told
    assert "**refused** | log loss 0.520, champion 0.500" in told


def test_what_it_leans_on_stands_in_the_card_where_it_was_measured() -> None:
    features = (
        FeatureImportance(feature="wind", rise=0.03, error=0.004),
        FeatureImportance(feature="rain", rise=-0.01),
    )
    found = Attribution(features=features, rows=2_000, days=7, loss=0.5, seed=1)
    told = card(an_evaluation().model_copy(update={"attribution": found}))

    assert "| wind | +0.03 | 0.004 | 100% |\n| rain | -0.01 | — | 0% |" in told
    assert "That was not measured" in card(an_evaluation())
