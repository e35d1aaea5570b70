"""What a job has used so far, over all of its parts: a job that is killed and resumed is paid for twice.

Each rank keeps a note in the job's folder and rewrites it every few seconds from a thread of its own, so that a kill
loses no more than that; a part is one launch. Who asked for the job may have the notes kept in a folder of its own too
(`TrainingJob.account`): what it finds done it has not used. `spent` adds notes up. Called by `worker.py` and `launch.py`.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import NonNegativeFloat

from evergreen.types import Cost, Fact, Rates

if TYPE_CHECKING:
    from evergreen.training.run.parallel import Place

EVERY_SECONDS = 2.0
LAUNCHER = "launcher"


class Note(Fact):
    """What one process of one part has used."""

    part: int
    """The launch it belongs to."""
    who: str
    """`rank N`, or the launcher."""
    attempt: int = 0
    """When a rank began, in milliseconds: within one launch it may start again. The launcher does not."""
    device: str
    seconds: NonNegativeFloat
    """Since the launch."""
    cpu_seconds: NonNegativeFloat
    held_seconds: NonNegativeFloat
    """Since it has the device."""
    energy_joules: NonNegativeFloat | None = None

    @property
    def device_seconds(self) -> float:
        """CPU seconds used, or seconds a GPU was held."""
        return self.cpu_seconds if self.device == "cpu" else self.held_seconds

    def price(self, rates: Rates) -> float | None:
        """By the rate of its device."""
        rate = rates.cpu_hour if self.device == "cpu" else rates.gpu_hour
        return None if rate is None else rate * self.device_seconds / 3600


def write_note(folders: Sequence[Path], note: Note) -> None:
    """Replace this process's note in each folder; a kill leaves the one before."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{note.part}-{note.who.replace(' ', '-')}-{note.attempt}.json"
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(note.model_dump_json())
        scratch.replace(path)


@contextmanager
def metered(folders: Sequence[Path], started: float, place: "Place") -> Iterator[None]:
    """Keep this rank's note in each folder while the block lasts; `started` is the `time.time()` of the launch."""
    from evergreen.training.run.gauges import EnergyMeter, device_name

    device, since, over = device_name(place.device), time.monotonic(), threading.Event()
    attempt = part_of(time.time())
    # All CPUs of a machine share their counters, so one rank of each reads them.
    tells_energy = place.device.type == "cuda" or int(os.environ.get("LOCAL_RANK", 0)) == 0
    energy = EnergyMeter(place.device) if tells_energy else None

    def note() -> None:
        used = Note(
            part=part_of(started),
            who=f"rank {place.rank}",
            attempt=attempt,
            device=device,
            seconds=max(time.time() - started, 0.0),
            cpu_seconds=time.process_time(),
            held_seconds=time.monotonic() - since,
            energy_joules=energy.read() if energy else None,
        )
        write_note(folders, used)

    def keep() -> None:
        while not over.wait(EVERY_SECONDS):
            note()

    note()
    thread = threading.Thread(target=keep, name="spending", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        note()


def note_launcher(folders: Sequence[Path], started: float) -> None:
    """Note what the launcher itself has used: mostly the imports that its ranks share."""
    _note_cpu(folders, LAUNCHER, started, max(time.time() - started, 0.0), time.process_time())


def note_cost(folder: Path, cost: Cost) -> None:
    """Note what was just done in this process, on its CPU and without a launch."""
    _note_cpu([folder], "rank 0", time.time() - cost.seconds, cost.seconds, cost.device_seconds)


def _note_cpu(folders: Sequence[Path], who: str, started: float, seconds: float, used: float) -> None:
    part = part_of(started)
    note = Note(part=part, who=who, device="cpu", seconds=seconds, cpu_seconds=used, held_seconds=seconds)
    write_note(folders, note)


def part_of(started: float) -> int:
    """A launch's name: its moment in milliseconds."""
    return int(started * 1e3)


def spent(folder: Path, rates: Rates) -> Cost | None:
    """What all parts noted in a folder, or below it, used together; None where no rank has written yet."""
    return total([_read(path) for path in sorted(folder.rglob("*.json"))], rates)


def total(notes: Sequence[Note], rates: Rates) -> Cost | None:
    """The sum of notes. On GPUs the launcher's CPU seconds are left out: the price of a GPU has them in it."""
    ranks = [note for note in notes if note.who != LAUNCHER]
    if not ranks:
        return None
    on_cpu = {note.part for note in ranks if note.device == "cpu"}
    paid = ranks + [note for note in notes if note.who == LAUNCHER and note.part in on_cpu]
    parts = {note.part for note in ranks}
    energies = [note.energy_joules for note in ranks if note.energy_joules is not None]
    prices = [note.price(rates) for note in paid]
    return Cost(
        device=" + ".join(sorted({note.device for note in ranks})),
        devices=len({note.who for note in ranks if note.part == max(parts)}),
        seconds=sum(max(note.seconds for note in notes if note.part == part) for part in parts),
        device_seconds=sum(note.device_seconds for note in paid),
        energy_joules=sum(energies) if energies else None,
        price=None if None in prices else sum(price for price in prices if price is not None),
        currency=rates.currency,
    )


def _read(path: Path) -> Note:
    return Note.model_validate_json(path.read_text())
