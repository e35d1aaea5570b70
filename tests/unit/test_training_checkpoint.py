"""A checkpoint is whole or refused, and the one before is used."""

import hashlib
import json
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evergreen.errors import CheckpointError
from evergreen.training.run.checkpoint import MANIFEST, Checkpoints
from evergreen.training.run.parallel import Place
from tests.factories import a_digest

ALONE = Place(0, 1, torch.device("cpu"))


def tensors(value: float) -> dict[str, Tensor]:
    return {"network.weight": torch.full((3, 2), value), "optimizer.weight.step": torch.tensor(value)}


def some_checkpoints(folder: Path, steps: tuple[int, ...] = (1, 2), keep: int = 3) -> Checkpoints:
    checkpoints = Checkpoints(folder, a_digest("a"), keep, ALONE)
    for step in steps:
        checkpoints.save(step, tensors(step), {"step": step, "curve": [{"train_loss": 0.1 + step}]})
    checkpoints.wait()
    return checkpoints


def newest(checkpoints: Checkpoints) -> tuple[dict[str, Tensor], dict[str, Any] | None, list[str]]:
    refused: list[str] = []
    places = tensors(0.0)
    manifest = checkpoints.load_newest(lambda: places, lambda error: refused.append(str(error)))
    return places, manifest and manifest["numbers"], refused


def test_the_newest_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    found, numbers, refused = newest(some_checkpoints(tmp_path))

    assert torch.equal(found["network.weight"], torch.full((3, 2), 2.0))
    assert found["optimizer.weight.step"].item() == 2.0
    assert (numbers, refused) == ({"step": 2, "curve": [{"train_loss": 2.1}]}, [])


def test_what_training_changes_while_it_is_written_is_not_in_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, a_digest("a"), 2, ALONE)
    changing = {"weight": torch.zeros(400, 1_000)}

    checkpoints.save(1, changing, {})
    changing["weight"].add_(1.0)
    checkpoints.wait()

    places = {"weight": torch.ones(400, 1_000)}
    checkpoints.load_newest(lambda: places, lambda _: None)
    assert places["weight"].count_nonzero() == 0


def test_without_any_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert newest(some_checkpoints(tmp_path / "none", ()))[1:] == (None, [])


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = some_checkpoints(tmp_path, steps=(1, 2, 3, 40, 500), keep=2)

    assert [path.name[:14] for path in checkpoints.newest_first()] == ["step-000000500", "step-000000040"]


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [tear, alter, Path.unlink])
@pytest.mark.parametrize("which", [MANIFEST, "shard"])
def test_a_damaged_one_is_refused_by_name_and_the_one_before_is_used(tmp_path: Path, which: str, damage: Any) -> None:
    checkpoints = some_checkpoints(tmp_path)
    damaged = checkpoints.newest_first()[0]
    damage(next(path for path in damaged.iterdir() if path.name.startswith(which)))

    found, numbers, refused = newest(checkpoints)

    assert numbers is not None
    assert (numbers["step"], found["optimizer.weight.step"].item()) == (1, 1.0)
    assert len(refused) == 1
    assert refused[0].startswith(f"checkpoint {damaged.name} ")
    assert refused[0].endswith("It is not used.")


def test_one_of_another_job_is_refused(tmp_path: Path) -> None:
    some_checkpoints(tmp_path)

    _, numbers, refused = newest(Checkpoints(tmp_path, a_digest("f"), 3, ALONE))

    assert numbers is None
    assert all(f"belongs to job {a_digest('a')}, not {a_digest('f')}" in line for line in refused)


def test_what_a_killed_write_left_behind_is_neither_taken_for_a_checkpoint_nor_kept(tmp_path: Path) -> None:
    some_checkpoints(tmp_path)
    (tmp_path / ".step-000000003").mkdir()
    (tmp_path / ".step-000000003" / "shard-00002-model-00001-of-00001.safetensors").write_bytes(b"half of it")

    checkpoints = some_checkpoints(tmp_path, steps=(3,))

    assert len(checkpoints.newest_first()) == 3
    assert newest(checkpoints)[1] == {"step": 3, "curve": [{"train_loss": 3.1}]}


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("sprung"),))


def test_a_file_nobody_wrote_is_refused_and_no_file_is_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoints = some_checkpoints(tmp_path / "c", steps=(1,))
    path = checkpoints.newest_first()[0]
    assert {file.suffix for file in path.iterdir()} == {".safetensors", ".json"}
    (path / ".metadata").write_bytes(pickle.dumps(Trap()))

    _, numbers, refused = newest(checkpoints)

    assert numbers is None
    assert "has files nobody wrote: {'.metadata'}" in refused[0]
    # Nor does it help to list it: what torch would unpickle by that name is not read.
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][".metadata"] = hashlib.sha256((path / ".metadata").read_bytes()).hexdigest()
    content = json.dumps(manifest).encode()
    (path / MANIFEST).write_bytes(content)
    path.rename(path.with_name(f"step-000000009.{hashlib.sha256(content).hexdigest()}"))
    assert newest(checkpoints)[1] is not None
    assert not Path("sprung").exists()


def test_a_disk_that_refuses_the_tensors_is_named_too(tmp_path: Path) -> None:
    checkpoints = some_checkpoints(tmp_path, steps=())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        checkpoints.save(1, {"weight": torch.zeros(400, 1_000)}, {})

        with pytest.raises(
            CheckpointError, match=r"could not be written to .*: \[Errno 27\] File too large.* Make room"
        ):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_refuses_is_named_at_the_next_occasion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    checkpoints = some_checkpoints(tmp_path, steps=())
    monkeypatch.setattr("evergreen.training.run.checkpoint.write_durably", full)
    checkpoints.save(1, tensors(1.0), {})

    with pytest.raises(CheckpointError, match=r"could not be written to .*No space left on device.*Make room"):
        checkpoints.wait()
