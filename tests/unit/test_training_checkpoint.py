"""A checkpoint is whole or refused, and the one before is used."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from evergreen.errors import CheckpointError
from evergreen.training.checkpoint import Checkpoints
from tests.factories import a_digest


def a_state(value: float) -> dict[str, Any]:
    return {"network": {"weight": torch.full((3,), value)}, "step": int(value), "curve": [{"train_loss": value}]}


def some_checkpoints(folder: Path, steps: tuple[int, ...] = (1, 2), keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder, a_digest("a"), keep)
    for step in steps:
        checkpoints.save(step, a_state(step))
    return checkpoints


def newest(checkpoints: Checkpoints) -> tuple[dict[str, Any] | None, list[str]]:
    refused: list[str] = []
    return checkpoints.load_newest(lambda error: refused.append(str(error))), refused


def test_the_newest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    state, refused = newest(some_checkpoints(tmp_path))

    assert state is not None
    assert torch.equal(state["network"]["weight"], torch.full((3,), 2.0))
    assert (state["step"], state["curve"], refused) == (2, [{"train_loss": 2}], [])


def test_without_any_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert newest(Checkpoints(tmp_path / "none", a_digest(), keep=2)) == (None, [])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = some_checkpoints(tmp_path, steps=(1, 2, 3, 40, 500), keep=2)

    assert [path.name[:14] for path in checkpoints.newest_first()] == ["step-000000500", "step-000000040"]


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [tear, alter])
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(tmp_path: Path, damage: Any) -> None:
    checkpoints = some_checkpoints(tmp_path)
    damaged = checkpoints.newest_first()[0]
    damage(damaged)

    state, refused = newest(checkpoints)

    assert state is not None
    assert state["step"] == 1
    assert refused == [
        f"checkpoint {damaged.name} is torn or altered: its bytes do not have the digest in its name. It is not used."
    ]


def test_one_of_another_job_is_refused(tmp_path: Path) -> None:
    some_checkpoints(tmp_path)

    state, refused = newest(Checkpoints(tmp_path, a_digest("f"), keep=3))

    assert state is None
    assert all(f"belongs to job {a_digest('a')}, not {a_digest('f')}" in line for line in refused)


def test_what_a_killed_write_left_behind_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    checkpoints = some_checkpoints(tmp_path)
    (tmp_path / f".{checkpoints.newest_first()[0].name}.4711").write_bytes(b"half of it")

    assert len(checkpoints.newest_first()) == 2


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_code_in_a_checkpoint_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"job": a_digest("a"), "step": 9, "state": Trap()}, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path = tmp_path / f"step-000000009.{digest}.pt"
    path.write_bytes(buffer.getvalue())

    with pytest.raises(CheckpointError, match="holds more than tensors and numbers"):
        Checkpoints(tmp_path, a_digest("a"), keep=1).load(path)
    assert not Path("sprung").exists()
