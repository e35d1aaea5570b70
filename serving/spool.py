"""Records on this machine's disk on their way elsewhere: appended, read in order, gone once they are safe there.

A folder of segments, each a file of records (length, CRC-32, content). A record is with the operating system when
`append` returns, so a killed process loses none; `sync`, called every few milliseconds, puts it on the disk itself, so
a power cut loses what came since. What a killed process left torn at the end is cut off when it is opened again. The
spool is bounded: the oldest segment goes to make room. Knows nothing of predictions; used by `log_writer.py`.
"""

import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Self

logger = logging.getLogger(__name__)

HEAD = struct.Struct("<II")
"""Before each record: its length in bytes and its CRC-32."""
SUFFIX = ".spool"


class NotKept(OSError):
    """The disk takes nothing more; the message is its own."""

    def __init__(self, error: OSError, lost: int) -> None:
        super().__init__(error.errno, error.strerror)
        self.lost = lost
        """Older records that had gone to make room by then."""


@dataclass
class Segment:
    """One file, written once from its beginning to its end and then read the same way."""

    path: Path
    size_bytes: int = 0
    """Of whole records."""
    records: int = 0
    read_bytes: int = 0
    read_records: int = 0
    safe_records: int = 0
    """Of those read, how many were acknowledged."""

    @property
    def unread(self) -> int:
        """Records nobody has read yet."""
        return self.records - self.read_records

    @property
    def waiting(self) -> int:
        """Records that were not acknowledged."""
        return self.records - self.safe_records


class Spool:
    """The segments of one folder. Any thread may append; one thread reads and acknowledges."""

    def __init__(self, folder: Path, *, capacity_bytes: int = 512 << 20, segment_bytes: int = 4 << 20) -> None:
        """Open what an earlier process left in `folder`; `torn_bytes` says how much of that could not be read.

        What cannot be read later is added there, and to `rotten_records`.
        """
        self._folder = folder
        self._capacity_bytes = capacity_bytes
        self._segment_bytes = min(segment_bytes, max(1, capacity_bytes // 4))
        self._lock = Lock()
        self._held: int | None = None
        self._file: int | None = None
        self._unsynced = False
        self._new_file = False
        self.torn_bytes = 0
        self.rotten_records = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._segments = deque(self._recovered(path) for path in sorted(folder.glob(f"*{SUFFIX}")))
        last = int(self._segments[-1].path.stem) if self._segments else 0
        self._numbers = count(last + 1)

    @classmethod
    def claim(cls, base: Path, *, capacity_bytes: int = 512 << 20) -> Self:
        """A folder under `base` that no living process has, with all that dead ones left in theirs.

        Held until `close` or the end of the process, however it ends.
        """
        base.mkdir(parents=True, exist_ok=True)
        for number in count():
            held = _lock(base / f"{number:03d}")
            if held is not None:
                break
        own = base / f"{number:03d}"
        last = max((int(path.stem) for path in own.glob(f"*{SUFFIX}")), default=0)
        for other in sorted(base.iterdir()):
            if other != own and (orphan := _lock(other)) is not None:
                for path in sorted(other.glob(f"*{SUFFIX}")):
                    last += 1
                    path.rename(own / f"{last:012d}{SUFFIX}")
                os.close(orphan)
        spool = cls(own, capacity_bytes=capacity_bytes)
        spool._held = held
        return spool

    @property
    def size_bytes(self) -> int:
        """On disk."""
        with self._lock:
            return self._size_bytes()

    @property
    def waiting(self) -> int:
        """Records that were not acknowledged."""
        with self._lock:
            return sum(segment.waiting for segment in self._segments)

    def append(self, records: Sequence[bytes]) -> int:
        """Keep the records, all or none; returns how many older ones went to make room.

        Costs one write to the page cache. Raises `NotKept` where the disk takes nothing; then none is kept.
        """
        content = b"".join(HEAD.pack(len(one), zlib.crc32(one)) + one for one in records)
        with self._lock:
            lost = 0
            try:
                lost = self._make_room(len(content))
                segment = self._written(content)
            except OSError as error:
                raise NotKept(error, lost) from error
            segment.size_bytes += len(content)
            segment.records += len(records)
            self._unsynced = True
            return lost

    def has_room(self, records: Sequence[bytes]) -> bool:
        """True where they can be appended and nothing has to go."""
        content_bytes = sum(map(len, records)) + HEAD.size * len(records)
        with self._lock:
            return self._size_bytes() + content_bytes <= self._capacity_bytes

    def read(self, most: int) -> list[bytes]:
        """The oldest records that were not read yet, at most so many; they stay on disk until `acknowledge`."""
        with self._lock:
            segment = next((one for one in self._segments if one.unread), None)
            if segment is None:
                return []
            with segment.path.open("rb") as file:
                file.seek(segment.read_bytes)
                found = list(islice(_records(file, segment.size_bytes), most))
            if not found:  # altered on the disk since it was opened
                self.torn_bytes += segment.size_bytes - segment.read_bytes
                self.rotten_records += segment.unread
                logger.error("%s: %d records cannot be read any more", segment.path, segment.unread)
                segment.read_records = segment.records
                return []
            segment.read_bytes = found[-1][1]
            segment.read_records += len(found)
            return [record for record, _ in found]

    def acknowledge(self) -> None:
        """All that was read is safe elsewhere; segments without anything else are deleted."""
        with self._lock:
            for segment in self._segments:
                segment.safe_records = segment.read_records
            self._drop_safe()

    def sync(self) -> None:
        """Put what was appended on the disk itself. Does nothing where nothing was."""
        with self._lock:
            if not self._unsynced or self._file is None:
                return
            self._unsynced = False
            file, new, self._new_file = os.dup(self._file), self._new_file, False
        try:
            os.fdatasync(file)
        finally:
            os.close(file)
        if new:
            _sync_folder(self._folder)

    def close(self) -> None:
        """Leave to the next process what was not acknowledged, and nothing else."""
        self.sync()
        with self._lock:
            self._seal()
            self._drop_safe()
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _size_bytes(self) -> int:
        """With the lock held."""
        return sum(segment.size_bytes for segment in self._segments)

    def _written(self, content: bytes) -> Segment:
        """The segment whose end it now is; nothing of it stays where the disk does not take all."""
        segment = self._open_segment(len(content))
        assert self._file is not None
        written = 0
        try:
            while written < len(content):
                written += os.write(self._file, content[written:])
        except OSError:
            os.ftruncate(self._file, segment.size_bytes)
            raise
        return segment

    def _open_segment(self, content_bytes: int) -> Segment:
        if self._file is not None and self._segments[-1].size_bytes + content_bytes > self._segment_bytes:
            self._seal()
        if self._file is None:
            path = self._folder / f"{next(self._numbers):012d}{SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            self._segments.append(Segment(path))
            self._new_file = True
        return self._segments[-1]

    def _make_room(self, content_bytes: int) -> int:
        lost = 0
        while self._segments and self._size_bytes() + content_bytes > self._capacity_bytes:
            if len(self._segments) == 1:
                self._seal()
            lost += self._segments[0].unread  # those that were read are with the reader, who goes on with them
            self._drop()
        return lost

    def _drop_safe(self) -> None:
        while self._segments and not self._segments[0].waiting:
            if len(self._segments) == 1 and self._file is not None:
                break  # more is appended to this one
            self._drop()

    def _drop(self) -> None:
        self._segments.popleft().path.unlink(missing_ok=True)

    def _seal(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _recovered(self, path: Path) -> Segment:
        segment, size_bytes = Segment(path), path.stat().st_size
        with path.open("rb") as file:
            for _, end in _records(file, size_bytes):
                segment.size_bytes = end
                segment.records += 1
        if torn := size_bytes - segment.size_bytes:
            self.torn_bytes += torn
            logger.warning("%s: %d bytes after record %d are torn and cut off", path, torn, segment.records)
            os.truncate(path, segment.size_bytes)
        return segment


def _records(file: BinaryIO, size_bytes: int) -> Iterator[tuple[bytes, int]]:
    """Whole records from where the file stands, with the offsets of their ends, up to the first that is torn or altered.

    None is empty: a file that a power cut left longer than what was written to it is full of zeros at its end.
    """
    end = file.tell()
    while len(head := file.read(HEAD.size)) == HEAD.size:
        length, checksum = HEAD.unpack(head)
        end += HEAD.size + length
        if not length or end > size_bytes or zlib.crc32(record := file.read(length)) != checksum:
            return
        yield record, end


def _lock(folder: Path) -> int | None:
    """Hold a folder, made if missing; None where another process does. The system lets go when its holder dies."""
    folder.mkdir(exist_ok=True)
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _sync_folder(folder: Path) -> None:
    """A new file's name is in its folder, which is synced by itself."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
