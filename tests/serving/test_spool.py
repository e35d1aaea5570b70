import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evergreen.settings import ROOT
from serving.spool import NotKept, Spool


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.spool"))


def test_records_come_back_in_order_and_once(spool: Spool) -> None:
    spool.append([b"a", b"b"])
    spool.append([b"c"])

    assert spool.read(2) == [b"a", b"b"]
    assert spool.read(2) == [b"c"]
    assert spool.read(2) == []


def test_what_was_not_acknowledged_is_there_for_the_next_process(tmp_path: Path) -> None:
    first = Spool(tmp_path)
    first.append([b"a", b"b"])
    first.read(2)

    second = Spool(tmp_path)  # the first was killed

    assert second.read(9) == [b"a", b"b"]


def test_what_was_acknowledged_is_gone_after_closing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a"])
    spool.read(9)
    spool.acknowledge()

    spool.close()

    assert files(tmp_path) == []


def test_closing_with_a_batch_in_flight_keeps_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append([b"a"])
    spool.read(9)

    spool.close()

    assert Spool(tmp_path).read(9) == [b"a"]


def test_a_segment_is_deleted_once_all_of_it_is_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path, segment_bytes=40)
    for letter in (b"a", b"b", b"c"):
        spool.append([letter * 20])
    assert len(files(tmp_path)) == 3

    spool.read(1)
    spool.acknowledge()

    assert len(files(tmp_path)) == 2
    assert spool.waiting == 2


def test_a_full_spool_drops_its_oldest_segment_and_says_how_much_that_was(tmp_path: Path) -> None:
    spool = Spool(tmp_path, capacity_bytes=400, segment_bytes=100)
    lost = [spool.append([b"%02d" % number * 21]) for number in range(10)]  # 50 bytes each, two a segment

    assert sum(lost) == 2
    assert spool.size_bytes <= 400
    assert spool.read(9) == [b"%02d" % 2 * 21, b"%02d" % 3 * 21]
    assert spool.waiting == 8


def test_there_is_room_for_what_can_be_appended_without_anything_going(tmp_path: Path) -> None:
    spool = Spool(tmp_path, capacity_bytes=400, segment_bytes=100)
    spool.append([b"x" * 42] * 2)  # 50 bytes each
    fits, too_much = [b"y" * 2] * 30, [b"y" * 2] * 31  # 10 bytes each

    assert (spool.has_room(fits), spool.has_room(too_much)) == (True, False)
    assert spool.append(fits) == 0
    spool.close()


@pytest.mark.parametrize("call", ["open", "write"])
def test_what_went_to_make_room_for_what_the_disk_did_not_take_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool = Spool(tmp_path, capacity_bytes=400, segment_bytes=100)
    for _ in range(8):
        spool.append([b"x" * 42])  # 50 bytes each, two a segment

    monkeypatch.setattr(os, call, Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(NotKept, match="No space left") as caught:
        spool.append([b"x" * 42])
    monkeypatch.undo()

    assert caught.value.lost == 2
    assert spool.waiting == 6
    spool.close()


def test_a_batch_in_flight_is_not_counted_as_lost_when_its_segment_goes(tmp_path: Path) -> None:
    spool = Spool(tmp_path, capacity_bytes=400, segment_bytes=100)
    for _ in range(8):
        spool.append([b"x" * 42])
    assert len(spool.read(1)) == 1

    lost = spool.append([b"x" * 42])

    assert lost == 1


@pytest.mark.parametrize("left", [0, 3, 20])
def test_a_file_that_was_cut_short_under_it_loses_what_is_gone_and_holds_up_nothing(
    spool: Spool, tmp_path: Path, left: int
) -> None:
    spool.append([b"a" * 42])
    (path,) = tmp_path.glob("*.spool")
    os.truncate(path, left)

    assert spool.read(9) == []
    assert (spool.torn_bytes, spool.rotten_records) == (50, 1)
    spool.acknowledge()
    assert spool.waiting == 0


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(st.from_regex(rb"[a-z]{1,50}", fullmatch=True), min_size=1, max_size=8),
    cut=st.integers(1, 500),
    tail=st.sampled_from([b"", b"\0" * 64, b"\xff" * 9]),
)
def test_a_torn_tail_loses_only_itself(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], cut: int, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    spool = Spool(folder)
    spool.append(records)
    (path,) = folder.glob("*.spool")
    whole = path.read_bytes()
    kept = max(0, len(whole) - cut)
    path.write_bytes(whole[:kept] + tail)
    ends, end = [], 0
    for record in records:
        end += 8 + len(record)
        ends.append(end)

    again = Spool(folder)
    again.append([b"later"])

    expected = [record for record, end in zip(records, ends, strict=True) if end <= kept]
    found = again.read(99)
    found += again.read(99)
    assert found == [*expected, b"later"]
    assert again.torn_bytes == kept + len(tail) - sum(8 + len(record) for record in expected)


def test_a_disk_that_takes_nothing_leaves_what_was_there(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    spool.append([b"a"])
    real = os.write
    takes = iter([4])

    def full(file: int, content: bytes) -> int:
        for size in takes:
            return real(file, content[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        spool.append([b"b"])
    monkeypatch.undo()
    spool.append([b"c"])

    assert spool.read(9) == [b"a", b"c"]


def test_two_processes_never_share_a_folder_and_the_dead_one_is_inherited(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from serving.spool import Spool\n"
        f"Spool.claim(Path({str(tmp_path)!r})).append([b'orphan']); print('there', flush=True); os.read(0, 1)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"there\n"
        mine = Spool.claim(tmp_path)
        assert mine.read(9) == []
        other.kill()
        other.wait()
    late = Spool.claim(tmp_path)  # in the dead one's folder

    assert late.read(9) == [b"orphan"]
    late.close()
    mine.close()


def test_a_process_inherits_from_folders_nobody_holds(tmp_path: Path) -> None:
    first, second = Spool.claim(tmp_path), Spool.claim(tmp_path)
    first.append([b"first"])
    second.append([b"second"])
    first.close()
    second.close()

    third = Spool.claim(tmp_path)

    assert third.read(1) + third.read(1) == [b"first", b"second"]
    third.close()


def test_what_rots_on_the_disk_is_passed_over_and_said(spool: Spool, tmp_path: Path) -> None:
    spool.append([b"a", b"b"])
    (path,) = tmp_path.glob("*.spool")
    path.write_bytes(path.read_bytes()[:-1].replace(b"a", b"x"))

    assert spool.read(9) == []
    spool.append([b"c"])

    assert spool.torn_bytes > 0
    assert spool.read(9) == []  # what follows in the same file has no place to start from
    spool.acknowledge()
    assert spool.waiting == 0


def test_syncing_needs_no_records(spool: Spool) -> None:
    spool.sync()
    spool.append([b"a"])
    spool.sync()
    spool.sync()


def test_its_size_can_be_asked_while_others_append(tmp_path: Path) -> None:
    spool = Spool(tmp_path, capacity_bytes=40_000, segment_bytes=10)
    done = Event()

    def append() -> None:
        for _ in range(3_000):
            spool.append([b"x" * 42])  # each a segment of its own, and the oldest goes
        done.set()

    others = Thread(target=append)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        others.start()
        while not done.is_set():
            assert spool.size_bytes <= 40_000
    finally:
        sys.setswitchinterval(before)
        others.join()
        spool.close()
