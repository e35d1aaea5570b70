"""The real MLflow over a database of its own: what a version's record holds, and that nothing happens twice."""

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest

from evergreen.adapters.mlflow.registry import ModelRegistry
from evergreen.errors import ArtifactError, ConfigurationError, UnknownModel
from evergreen.gate.budgets import faster_than_parent
from evergreen.settings import Settings
from evergreen.spec import ModelSpec, load_spec
from evergreen.training.artifact import artifact_digest, write_artifact
from evergreen.training.predictor import Predictor
from evergreen.training.run.launch import train
from evergreen.types import Baseline, Baselines, Cause, Check, Evaluation, GateDecision, ModelVersion, TrainedModel
from tests import training_factories
from tests.databases import empty_postgres_url
from tests.factories import a_gate_decision, a_model_version, a_release, a_trained_model, an_evaluation

ROOT = Path(__file__).resolve().parent.parent.parent
SPEC = load_spec(ROOT / "models" / "flight_delay.toml")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make its tables; once a session is enough."""
    home = tmp_path_factory.mktemp("mlflow")
    ModelRegistry(Settings(home=home))
    return home / "mlflow.db"


@pytest.fixture
def settings(empty_database: Path, tmp_path: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    shutil.copy(empty_database, home / "mlflow.db")
    return Settings(home=home, mlflow_ui_url="http://mlflow.example:5000")


@pytest.fixture
def registry(settings: Settings) -> ModelRegistry:
    return ModelRegistry(settings)


@pytest.fixture
def candidate(tmp_path: Path) -> TrainedModel:
    return a_candidate(tmp_path, "a")


def a_candidate(folder: Path, content: str) -> TrainedModel:
    """A folder of real files; the registry keeps and verifies bytes, and need not know what they mean."""
    path = folder / f"job-{content}" / "model"
    digest = write_artifact(path, {"model.json": b"{}", "weights.safetensors": content.encode() * 1000})
    return a_trained_model(uri=str(path), digest=digest)


def register(
    registry: ModelRegistry,
    candidate: TrainedModel,
    *,
    champion: Evaluation | None = None,
    decision: GateDecision | None = None,
    cause: Cause = Cause.DRIFT,
    spec: ModelSpec = SPEC,
    evaluation: Evaluation | None = None,
) -> ModelVersion:
    return registry.register(
        candidate,
        evaluation or an_evaluation(slices={"origin=JFK": 0.48}),
        champion,
        decision or a_gate_decision(),
        cause,
        spec,
        {"prefect.flow_run_id": "f00"},
    )


def client(settings: Settings) -> Any:
    return mlflow.MlflowClient(tracking_uri=settings.tracking_uri, registry_uri=settings.tracking_uri)


def counts(settings: Settings) -> dict[str, int]:
    mine = client(settings)
    experiment = mine.get_experiment_by_name("flight_delay").experiment_id
    return {
        "runs": len(mine.search_runs([experiment])),
        "models": len(mine.search_logged_models([experiment])),
        "versions": len(mine.search_model_versions("name = 'flight_delay'")),
    }


def test_a_candidate_that_passed_is_a_version(registry: ModelRegistry, candidate: TrainedModel) -> None:
    version = register(registry, candidate)

    assert (version.model, version.version, version.uri) == ("flight_delay", 1, "models:/flight_delay/1")
    assert (version.artifact, version.passed, version.reasons) == (candidate.digest, True, ())
    assert registry.version("flight_delay", 1) == version


def test_what_plain_models_came_to_is_kept_with_the_run(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    baselines = Baselines(
        tried=(
            Baseline(name="logistic regression", evaluation=an_evaluation(log_loss=0.52), note="scikit-learn"),
            Baseline(name="LightGBM", evaluation=None, note="not trained"),
        )
    )

    version = registry.register(candidate, an_evaluation(), None, a_gate_decision(), Cause.DRIFT, SPEC, {}, baselines)

    assert registry.baselines(version) == baselines
    metrics = client(settings).get_run(version.run_id).data.metrics
    assert metrics["baseline/logistic regression/log_loss"] == 0.52
    assert not [name for name in metrics if name.startswith("baseline/LightGBM")]


def test_a_refused_candidate_is_a_version_too_with_its_reasons(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    decision = a_gate_decision(passed=False, reason="log loss 0.520, champion 0.500: change +0.0200, may rise 0.0100")

    version = register(registry, candidate, decision=decision)

    assert not version.passed
    assert version.reasons == decision.reasons
    assert registry.version("flight_delay", version.version) == version
    tags = client(settings).get_model_version("flight_delay", "1").tags
    assert tags["evergreen.gate"] == "refused"


def test_the_run_tells_everything_it_takes_to_train_the_model_again(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    """Law 7."""
    version = register(registry, candidate, champion=an_evaluation(log_loss=0.51), cause=Cause.DECAY)

    run = client(settings).get_run(version.run_id)
    tags = run.data.tags

    assert tags["evergreen.data_digest"] == candidate.training_set.digest
    assert tags["evergreen.spec_digest"] == candidate.spec_digest
    assert tags["evergreen.code_revision"] == candidate.code_revision
    assert tags["evergreen.seed"] == "20130101"
    assert tags["evergreen.cause"] == "decay"
    assert tags["prefect.flow_run_id"] == "f00"
    assert {"python", "torch", "numpy", "mlflow"} <= set(json.loads(tags["evergreen.versions"]))
    assert run.data.params["train.epochs"] == "4"
    assert run.data.params["rows"] == "18000"
    assert run.data.metrics["holdout/log_loss"] == 0.50
    assert run.data.metrics["champion/log_loss"] == 0.51
    assert run.data.metrics["slice/origin.JFK/log_loss"] == 0.48
    assert run.info.status == "FINISHED"


def test_the_training_curve_is_kept_by_step(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    version = register(registry, candidate)

    history = client(settings).get_metric_history(version.run_id, "training/validation_loss")

    assert [(point.step, point.value) for point in history] == [(20, 0.53), (40, 0.50)]


def test_what_was_judged_can_be_read_back(registry: ModelRegistry, candidate: TrainedModel, tmp_path: Path) -> None:
    evaluation, champion = an_evaluation(slices={"origin=JFK": 0.48}), an_evaluation(log_loss=0.51, artifact="b")
    decision = a_gate_decision()
    version = register(registry, candidate, evaluation=evaluation, champion=champion, decision=decision)

    assert registry.training_set(version) == candidate.training_set
    assert registry.evaluation(version) == evaluation
    assert registry.judgement(version) == (evaluation, champion, decision)
    card = registry.client.download_artifacts(version.run_id, "card.md", str(tmp_path))
    assert decision.checks[0].reason in Path(card).read_text()


def test_the_first_version_was_judged_beside_no_champion(registry: ModelRegistry, candidate: TrainedModel) -> None:
    version = register(registry, candidate)

    assert registry.judgement(version)[1] is None


def test_the_same_artifact_again_is_the_same_version(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    first = register(registry, candidate)

    again = register(registry, candidate)

    assert again == first
    assert counts(settings) == {"runs": 1, "models": 1, "versions": 1}


def many_reasons(count: int, length: int = 100) -> GateDecision:
    return GateDecision(
        checks=tuple(
            Check(name=f"slice {n}", passed=False, figure=0.1, rule="r", reason=f"slice {n} rose ".ljust(length, '"'))
            for n in range(count)
        )
    )


@pytest.mark.parametrize("decision", [many_reasons(60), many_reasons(2_000), many_reasons(1, 120_000)])
def test_a_refusal_for_very_many_reasons_keeps_them_all_in_its_record_and_what_fits_in_its_tags(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel, decision: GateDecision
) -> None:
    version = register(registry, candidate, decision=decision)

    assert registry.judgement(version)[2] == decision
    assert version.reasons[0][:100] == decision.reasons[0][:100]
    assert "gate.json" in version.reasons[-1]
    found = client(settings).get_model_version("flight_delay", "1")
    assert len(found.description) < 5_000
    assert client(settings).get_run(version.run_id).data.tags["evergreen.reasons"] == found.tags["evergreen.reasons"]
    assert register(registry, candidate, decision=decision) == version


def test_what_is_not_told_is_counted(registry: ModelRegistry, candidate: TrainedModel) -> None:
    version = register(registry, candidate, decision=many_reasons(60))

    assert version.reasons[-1] == "... and 20 more, see gate.json"


def test_a_refusal_for_very_many_reasons_is_registered_on_postgres_too(empty_postgres_url: str, tmp_path: Path) -> None:
    url = empty_postgres_url.replace("postgresql:", "postgresql+psycopg:")
    registry = ModelRegistry(Settings(home=tmp_path, mlflow_tracking_uri=url))
    decision = many_reasons(60)

    version = register(registry, a_candidate(tmp_path, "a"), decision=decision)

    assert registry.version("flight_delay", 1) == version
    assert registry.judgement(version)[2] == decision
    registry.client._tracking_client.store.engine.dispose()


def test_a_refusal_for_other_reasons_is_another_version_with_a_record_of_its_own(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    decisions = [a_gate_decision(passed=False, reason=reason) for reason in ("too bad", "too slow")]

    versions = [register(registry, candidate, decision=decision) for decision in (*decisions, *decisions)]

    assert [version.version for version in versions] == [1, 2, 1, 2]
    assert [version.reasons for version in versions[:2]] == [("too bad",), ("too slow",)]
    assert [registry.judgement(version)[2] for version in versions[:2]] == decisions
    assert counts(settings) == {"runs": 2, "models": 1, "versions": 2}


def test_a_clock_that_says_another_figure_does_not_make_another_version(
    registry: ModelRegistry, candidate: TrainedModel
) -> None:
    decisions = [GateDecision(checks=(faster_than_parent(ms, 1.0, 300),)) for ms in (1.1, 1.2)]

    first, again = (register(registry, candidate, decision=decision) for decision in decisions)

    assert again == first
    assert "1.100 ms" in first.reasons[0]


def test_what_was_refused_before_refusals_had_a_digest_is_known_by_its_reasons(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    first, other = (a_gate_decision(passed=False, reason=reason) for reason in ("too bad", "too slow"))
    version = register(registry, candidate, decision=first)
    client(settings).delete_model_version_tag("flight_delay", "1", "evergreen.refusal")

    assert register(registry, candidate, decision=first) == version
    assert register(registry, candidate, decision=other).version == 2


def test_another_artifact_is_another_version(registry: ModelRegistry, settings: Settings, tmp_path: Path) -> None:
    versions = [register(registry, a_candidate(tmp_path, content)).version for content in "ab"]

    assert versions == [1, 2]
    assert counts(settings) == {"runs": 2, "models": 2, "versions": 2}


class Killed(BaseException):
    """Stands for the process's end: nothing catches it."""


class DyingClient:
    """The real client, whose process dies just after its n-th call that changes anything."""

    def __init__(self, real: Any, calls_to_live: int) -> None:
        self._real = real
        self._left = calls_to_live

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if not name.startswith(("create", "log", "set", "finalize")):
            return real

        def call(*args: Any, **given: Any) -> Any:
            answer = real(*args, **given)
            self._left -= 1
            if self._left <= 0:
                raise Killed(name)
            return answer

        return call


@pytest.mark.parametrize(
    ("calls", "last"), [(1, "create_registered_model"), (2, "create_experiment"), (3, "create_run")]
)
def test_killed_while_the_first_candidate_is_registered_it_goes_on(
    settings: Settings, candidate: TrainedModel, calls: int, last: str
) -> None:
    """Law 6, where nothing is there yet."""
    registry = ModelRegistry(settings)
    registry._client = DyingClient(registry._client, calls)
    with pytest.raises(Killed, match=last):
        register(registry, candidate)

    register(ModelRegistry(settings), candidate)

    assert counts(settings) == {"runs": 1, "models": 1, "versions": 1}


def test_killed_after_any_of_its_calls_and_run_again_it_ends_with_one_run_and_one_version(
    settings: Settings, tmp_path: Path
) -> None:
    """Law 6."""
    registry = ModelRegistry(settings)
    real = registry._client
    register(registry, a_candidate(tmp_path, "the first makes the experiment"))
    died_after = []
    for calls in range(1, 100):
        candidate = a_candidate(tmp_path, f"candidate {calls}")
        registry._client = DyingClient(real, calls)
        try:
            register(registry, candidate)
        except Killed as killed:
            died_after.append(str(killed))
        else:
            break
        registry._client = real

        version = register(registry, candidate)

        made = calls + 1
        assert version.version == made
        assert counts(settings) == {"runs": made, "models": made, "versions": made}, died_after[-1]
        assert registry.training_set(version) == candidate.training_set
        assert artifact_digest(registry.fetch(version, tmp_path / "cache")) == candidate.digest
        assert len(real.get_metric_history(version.run_id, "training/validation_loss")) == 2
        assert real.get_run(version.run_id).info.status == "FINISHED"
    assert died_after == [
        "create_run",
        "log_batch",
        "log_batch",
        "log_artifacts",
        "create_logged_model",
        "log_model_artifacts",
        "finalize_logged_model",
        "log_outputs",
        "set_terminated",
        "create_model_version",
    ]


def test_a_judged_version_is_sealed_and_may_serve(registry: ModelRegistry, candidate: TrainedModel) -> None:
    version = register(registry, candidate)

    assert version.seal is not None
    assert registry.servable("flight_delay", 1) == version


def test_a_refused_version_is_sealed_too_and_may_not_serve(registry: ModelRegistry, candidate: TrainedModel) -> None:
    register(registry, candidate, decision=a_gate_decision(passed=False, reason="too bad"))

    with pytest.raises(ArtifactError, match=r"version 1 is never served: it did not pass its gate \(too bad\)"):
        registry.servable("flight_delay", 1)


@pytest.mark.parametrize(("tag", "value"), [("evergreen.gate", "passed"), ("evergreen.artifact", "sha256:" + "0" * 64)])
def test_a_version_whose_tags_were_altered_may_not_serve(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel, tag: str, value: str
) -> None:
    register(registry, candidate, decision=a_gate_decision(passed=False))
    client(settings).set_model_version_tag("flight_delay", "1", tag, value)

    with pytest.raises(ArtifactError, match="altered after it was judged"):
        registry.servable("flight_delay", 1)


def test_a_version_whose_verdict_was_rewritten_may_not_serve(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    register(registry, candidate)
    (verdict,) = (settings.home / "mlartifacts").rglob("gate.json")
    verdict.write_text(verdict.read_text().replace("0.0100", "0.0200"))

    with pytest.raises(ArtifactError, match="altered after it was judged"):
        registry.servable("flight_delay", 1)


def test_an_unsealed_version_may_not_serve_until_it_is_registered_again(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    version = register(registry, candidate)
    client(settings).delete_model_version_tag("flight_delay", "1", "evergreen.seal")
    with pytest.raises(ArtifactError, match="nobody sealed it"):
        registry.servable("flight_delay", 1)

    assert register(registry, candidate) == version
    assert registry.servable("flight_delay", 1) == version


def revoke(settings: Settings) -> None:
    """As the README says: the key and its public half go; whoever signs next makes another."""
    settings.private_key.unlink()
    for public in settings.public_keys.glob("*.pem"):
        public.unlink()


def test_a_version_whose_key_was_revoked_may_serve_again_once_it_is_registered_again(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    first = register(registry, candidate)
    revoke(settings)
    with pytest.raises(ArtifactError, match="Register it again through the gate"):
        registry.servable("flight_delay", 1)

    real = registry._client
    registry._client = DyingClient(real, 1)
    with pytest.raises(Killed, match="log_artifacts"):
        register(registry, candidate)
    registry._client = real
    again = register(registry, candidate)

    assert again == first.model_copy(update={"seal": again.seal})
    assert registry.servable("flight_delay", 1) == again
    assert counts(settings) == {"runs": 1, "models": 1, "versions": 1}


def test_a_new_seal_is_of_the_present_decision_and_never_of_what_lies_in_the_run(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    version = register(registry, candidate)
    client(settings).delete_model_version_tag("flight_delay", "1", "evergreen.seal")
    (verdict,) = (settings.home / "mlartifacts").rglob("gate.json")
    verdict.write_text('{"checks": []}')

    again = register(registry, candidate)

    assert registry.judgement(again)[2] == a_gate_decision()
    assert registry.servable("flight_delay", 1) == version  # the same key says the same of the same decision


def test_a_version_whose_bytes_the_registry_no_longer_has_gets_no_new_seal(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel
) -> None:
    register(registry, candidate)
    revoke(settings)
    (kept,) = (settings.home / "mlartifacts").rglob("weights.safetensors")
    kept.write_bytes(b"evil")

    with pytest.raises(ArtifactError, match="its bytes changed since"):
        register(registry, candidate)
    with pytest.raises(ArtifactError, match="no signature of the 0 trusted keys"):
        registry.servable("flight_delay", 1)


def test_while_its_seal_holds_a_version_keeps_its_first_judgement(
    registry: ModelRegistry, candidate: TrainedModel
) -> None:
    decision = a_gate_decision()
    version = register(registry, candidate, decision=decision)
    other = a_gate_decision(reason="log loss 0.490, champion 0.500: change -0.0100, may rise 0.0100")

    assert register(registry, candidate, decision=other) == version
    assert registry.judgement(version)[2] == decision


def test_a_fetched_artifact_has_the_bytes_that_were_judged(
    registry: ModelRegistry, candidate: TrainedModel, tmp_path: Path
) -> None:
    version = register(registry, candidate)

    folder = registry.fetch(version, tmp_path / "cache")

    assert artifact_digest(folder) == candidate.digest
    assert registry.fetch(version, tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]


def test_a_cached_copy_that_was_altered_is_fetched_again(
    registry: ModelRegistry, candidate: TrainedModel, tmp_path: Path
) -> None:
    version = register(registry, candidate)
    folder = registry.fetch(version, tmp_path / "cache")
    (folder / "weights.safetensors").write_bytes(b"evil")

    assert artifact_digest(registry.fetch(version, tmp_path / "cache")) == candidate.digest


def test_bytes_that_changed_in_the_registry_are_never_handed_out(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel, tmp_path: Path
) -> None:
    """Law 3."""
    version = register(registry, candidate)
    (kept,) = (settings.home / "mlartifacts").rglob("weights.safetensors")
    kept.write_bytes(b"evil")

    with pytest.raises(ArtifactError, match="its bytes changed since"):
        registry.fetch(version, tmp_path / "cache")

    assert list((tmp_path / "cache").iterdir()) == []


def test_an_artifact_that_is_gone_is_an_artifact_error(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel, tmp_path: Path
) -> None:
    version = register(registry, candidate)
    shutil.rmtree(settings.home / "mlartifacts" / "models")

    with pytest.raises(ArtifactError, match="models:/flight_delay/1 cannot be fetched"):
        registry.fetch(version, tmp_path / "cache")


def test_a_candidate_whose_files_changed_after_it_was_judged_is_not_registered(
    registry: ModelRegistry, candidate: TrainedModel
) -> None:
    (Path(candidate.uri) / "model.json").write_text("[]")

    with pytest.raises(ArtifactError, match="was judged: its bytes changed since"):
        register(registry, candidate)

    with pytest.raises(UnknownModel):
        registry.version("flight_delay", 1)


def test_the_aliases_mirror_the_release_and_mirroring_twice_changes_nothing(
    registry: ModelRegistry, settings: Settings, tmp_path: Path
) -> None:
    for content in "abc":
        register(registry, a_candidate(tmp_path, content))
    shown = []

    for release in (
        a_release(champion=1),
        a_release(champion=1, challenger=2),
        a_release(champion=2, previous=1),
        a_release(champion=2, previous=1),
        a_release(champion=1),
    ):
        registry.mirror(release)
        aliases = client(settings).get_registered_model("flight_delay").aliases
        shown.append({alias: int(version) for alias, version in aliases.items()})

    assert shown == [
        {"champion": 1},
        {"champion": 1, "challenger": 2},
        {"champion": 2, "previous": 1},
        {"champion": 2, "previous": 1},
        {"champion": 1},
    ]


def test_an_alias_whose_version_was_deleted_is_passed_over_and_shows_no_other(
    registry: ModelRegistry, settings: Settings, tmp_path: Path
) -> None:
    for content in "abc":
        register(registry, a_candidate(tmp_path, content))
    registry.mirror(a_release(champion=3))
    client(settings).delete_model_version("flight_delay", "1")
    release = a_release(champion=1, challenger=2, previous=3)

    registry.mirror(release)

    assert registry.mirrored("flight_delay") == ({"challenger": 2, "previous": 3}, release)


def test_a_version_that_does_not_exist_is_an_unknown_model(registry: ModelRegistry, candidate: TrainedModel) -> None:
    register(registry, candidate)

    with pytest.raises(UnknownModel, match="no version 9 of 'flight_delay'"):
        registry.version("flight_delay", 9)
    with pytest.raises(UnknownModel, match="no version 1 of 'nothing'"):
        registry.version("nothing", 1)


def test_a_version_somebody_registered_by_hand_was_never_judged(
    registry: ModelRegistry, settings: Settings, tmp_path: Path
) -> None:
    client(settings).create_registered_model("flight_delay")
    client(settings).create_model_version("flight_delay", source=tmp_path.as_uri())

    with pytest.raises(ArtifactError, match="no digest and no verdict"):
        registry.version("flight_delay", 1)


def test_a_run_without_our_records_says_so(registry: ModelRegistry, settings: Settings) -> None:
    experiment = client(settings).create_experiment("by hand")
    run = client(settings).create_run(experiment)

    with pytest.raises(ArtifactError, match=r"no readable training_set\.json"):
        registry.training_set(a_model_version().model_copy(update={"run_id": run.info.run_id}))


def test_a_file_is_kept_with_its_run_and_has_an_address(
    registry: ModelRegistry, settings: Settings, candidate: TrainedModel, tmp_path: Path
) -> None:
    version = register(registry, candidate)
    page = tmp_path / "drift of may.html"
    page.write_text("<p>drift</p>")

    address = registry.log_file(version.run_id, page, "watch")

    kept = client(settings).download_artifacts(version.run_id, "watch/drift of may.html", str(tmp_path))
    assert Path(kept).read_text() == "<p>drift</p>"
    assert address == f"{registry.run_url(version.run_id)}/artifacts/watch/drift%20of%20may.html"
    assert registry.run_url(version.run_id) == f"http://mlflow.example:5000/#/experiments/1/runs/{version.run_id}"


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "mlruns"])
def test_runs_in_plain_files_are_refused_with_what_to_use_instead(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///FILE"):
        ModelRegistry(Settings(home=tmp_path, mlflow_tracking_uri=uri))


def test_four_threads_that_register_at_once_make_four_versions_of_one_model(settings: Settings, tmp_path: Path) -> None:
    candidates = [a_candidate(tmp_path, str(number)) for number in range(4)]
    versions: list[int] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def run(candidate: TrainedModel) -> None:
        registry = ModelRegistry(settings)
        barrier.wait()
        try:
            versions.append(register(registry, candidate).version)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(candidate,)) for candidate in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert sorted(versions) == [1, 2, 3, 4]
    assert counts(settings) == {"runs": 4, "models": 4, "versions": 4}


def test_nothing_is_written_where_the_process_happens_to_run(
    registry: ModelRegistry, candidate: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    registry.fetch(register(registry, candidate), tmp_path / "cache")

    assert list(elsewhere.iterdir()) == []


def test_mlflow_itself_loads_a_registered_model_and_scores_like_the_predictor(
    registry: ModelRegistry, settings: Settings, tmp_path: Path
) -> None:
    job = training_factories.a_job(tmp_path, training_factories.a_training_set(tmp_path))
    candidate = train(job)
    version = register(registry, candidate, spec=job.spec)
    where = client(settings).get_model_version_download_uri(version.model, str(version.version))
    rows = training_factories.some_rows(50, seed=3)
    inputs = rows[list(candidate.training_set.features)].astype({"count": "float64"})
    inputs.loc[0, ["delay", "carrier"]] = [None, None]

    scores = mlflow.pyfunc.load_model(where).predict(inputs)

    expected = Predictor.load(candidate.uri).score({name: inputs[name].to_numpy() for name in inputs.columns})
    assert np.array_equal(scores, expected)
    assert 0.0 < scores.min() < scores.max() < 1.0


def open_registry(home: Path) -> None:
    ModelRegistry(Settings(home=home))


@pytest.mark.slow
def test_processes_that_open_an_empty_registry_at_once_all_succeed(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=open_registry, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0, 0]


@pytest.fixture
def server(settings: Settings, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", settings.tracking_uri, "--artifacts-destination", str(tmp_path / "served")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/health"), seconds=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)
        log.close()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.mark.slow
def test_the_same_registry_works_over_a_server(server: str, settings: Settings, tmp_path: Path) -> None:
    registry = ModelRegistry(settings.model_copy(update={"mlflow_tracking_uri": server}))
    candidate = a_candidate(tmp_path, "over http")

    version = register(registry, candidate)
    again = register(registry, candidate)
    registry.mirror(a_release(champion=version.version))

    assert again == version
    assert artifact_digest(registry.fetch(version, tmp_path / "cache")) == candidate.digest
    assert registry.training_set(version) == candidate.training_set
    assert not (settings.home / "mlartifacts").exists(), "the server's files are the server's business"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_known_to_be_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = Settings(home=tmp_path, mlflow_tracking_uri=f"http://127.0.0.1:{unused.getsockname()[1]}")
        begun = time.monotonic()

        with pytest.raises(mlflow.exceptions.MlflowException, match="Connection refused"):
            ModelRegistry(settings)

    assert time.monotonic() - begun < 30
