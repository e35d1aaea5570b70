"""Variants of the flights' champion, through the real gate."""

import pytest

from evergreen.errors import ArtifactError
from evergreen.wiring import Wiring
from flows.optimise import optimise

MODEL = "flight_delay"


@pytest.mark.slow
def test_each_variant_is_a_version_beside_its_parent_and_serves_only_if_it_passed(world: Wiring) -> None:
    made = optimise(1, MODEL)

    registry = world.registry
    tags = [registry.client.get_run(one.run_id).data.tags for one in made]
    assert [(one["evergreen.parent"], one["evergreen.variant"]) for one in tags] == [
        ("1", "bfloat16"),
        ("1", "int8"),
        ("1", "exported"),
        ("1", "pruned"),
        ("1", "onnx"),
        ("1", "compiled"),
    ]
    for one in made:
        evaluation, of_parent, decision = registry.judgement(one)
        assert of_parent is not None
        assert evaluation.holdout_digest == of_parent.holdout_digest
        assert {"answers_as_parent", "faster_than_parent"} <= {check.name for check in decision.checks}
        assert "not_worse_than_champion" in {check.name for check in decision.checks}
        if one.passed:
            assert registry.servable(MODEL, one.version) == one
        else:
            assert one.reasons
            with pytest.raises(ArtifactError, match="did not pass its gate"):
                registry.servable(MODEL, one.version)


def test_a_variant_that_costs_accuracy_is_refused(world: Wiring) -> None:
    from tasks.optimise import judge_variant, make_variant

    spec = world.spec(MODEL)
    strict = spec.model_copy(update={"gate": spec.gate.model_copy(update={"margin": 0.0, "superiority": True})})
    parent = world.registry.servable(MODEL, 1)

    version = judge_variant.fn(strict, parent, make_variant.fn(parent, "exported"), "exported")

    assert not version.passed  # the same answers are no better
    assert any("log loss" in reason for reason in version.reasons)


def test_a_variant_earns_its_place_beside_the_baselines_of_its_parent(world: Wiring) -> None:
    from tasks.optimise import judge_variant, make_variant

    spec = world.spec(MODEL)
    compared = spec.model_copy(update={"gate": spec.gate.model_copy(update={"baseline_margin": 1.0})})
    parent = world.registry.servable(MODEL, 1)

    version = judge_variant.fn(compared, parent, make_variant.fn(parent, "pruned"), "pruned")

    (baseline,) = [check for check in world.registry.judgement(version)[2].checks if check.name == "baseline"]
    assert baseline.passed, baseline.reason
