"""What a job cost: every part of it, by the kind of device, at the settings' rates."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from evergreen.training.run.gauges import packages
from evergreen.training.run.parallel import Place
from evergreen.training.run.spending import EVERY_SECONDS, LAUNCHER, Note, metered, note_launcher, spent, total
from evergreen.types import Rates

CPU = torch.device("cpu")
RATES = Rates(cpu_hour=3.6, gpu_hour=36.0, currency="EUR")


def a_note(part: int = 1, who: str = "rank 0", device: str = "cpu", **fields: float) -> Note:
    used = {"seconds": 100.0, "cpu_seconds": 90.0, "held_seconds": 80.0}
    return Note.model_validate({"part": part, "who": who, "device": device} | used | fields)


def test_cpu_seconds_are_summed_over_ranks_launcher_and_parts_and_the_clock_over_parts() -> None:
    notes = [
        a_note(1, "rank 0", cpu_seconds=10, seconds=20),
        a_note(1, "rank 1", cpu_seconds=11, seconds=21),
        a_note(1, LAUNCHER, cpu_seconds=4, seconds=22),
        a_note(2, "rank 0", cpu_seconds=5, seconds=8),
    ]

    cost = total(notes, RATES)

    assert cost is not None
    assert (cost.device, cost.devices, cost.seconds, cost.device_seconds) == ("cpu", 1, 30, 30)
    assert cost.price == pytest.approx(0.03)
    assert cost.currency == "EUR"


def test_a_gpu_is_paid_for_while_it_is_held_and_has_its_cpus_in_its_price() -> None:
    notes = [
        a_note(1, "rank 0", "H100", held_seconds=50, energy_joules=20_000),
        a_note(1, "rank 1", "H100", held_seconds=50, energy_joules=21_000),
        a_note(1, LAUNCHER),
    ]

    cost = total(notes, RATES)

    assert cost is not None
    assert (cost.device, cost.devices, cost.device_seconds, cost.energy_joules) == ("H100", 2, 100, 41_000)
    assert cost.price == pytest.approx(1.0)
    assert str(cost) == "100.0 s on 2 x H100, 100.0 seconds of H100, 11.39 Wh, 1.0000 EUR"


def test_without_a_rate_there_is_no_price_and_without_a_counter_no_energy() -> None:
    cost = total([a_note()], Rates())

    assert cost is not None
    assert (cost.price, cost.energy_joules) == (None, None)
    assert str(cost) == "100.0 s on 1 x cpu, 90.0 CPU seconds"


def test_a_job_that_never_had_a_rank_cost_nothing_that_is_known(tmp_path: Path) -> None:
    assert spent(tmp_path / "spent", RATES) is None
    note_launcher([tmp_path / "spent"], time.time())
    assert spent(tmp_path / "spent", RATES) is None


def test_a_rank_notes_its_own_cpu_seconds(tmp_path: Path) -> None:
    before = time.process_time()
    with metered([tmp_path], time.time(), Place(0, 1, CPU)):
        while time.process_time() - before < 0.1:
            pass

    cost = spent(tmp_path, RATES)

    assert cost is not None
    assert cost.device == "cpu"
    assert 0.1 <= cost.device_seconds <= time.process_time()


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from evergreen.training.run.parallel import Place
from evergreen.training.run import spending
spending.EVERY_SECONDS = 0.05
with spending.metered([Path(sys.argv[1])], time.time(), Place(0, 1, torch.device("cpu"))):
    while True:
        print("at work", flush=True)
        time.sleep(0.05)
"""


def test_a_killed_part_has_left_its_note_and_the_next_is_added(tmp_path: Path) -> None:
    rank = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert rank.stdout is not None
    with rank.stdout:
        for _ in range(10):
            rank.stdout.readline()
        rank.kill()
    rank.wait()
    first = spent(tmp_path, RATES)
    assert first is not None
    assert first.device_seconds > 0.5, "importing torch alone takes more"

    with metered([tmp_path], time.time(), Place(0, 1, CPU)):
        pass

    both = spent(tmp_path, RATES)
    assert both is not None
    assert both.device_seconds > first.device_seconds
    assert EVERY_SECONDS > 0.05


def test_a_rank_that_starts_again_within_a_launch_is_paid_for_each_time(tmp_path: Path) -> None:
    launched = time.time()
    with metered([tmp_path], launched, Place(0, 1, CPU)):
        pass
    first = spent(tmp_path, RATES)
    time.sleep(0.01)

    with metered([tmp_path], launched, Place(0, 1, CPU)):
        pass

    both = spent(tmp_path, RATES)
    assert first is not None
    assert both is not None
    assert both.device_seconds >= 2 * first.device_seconds
    assert both.devices == 1


def test_energy_is_that_of_the_packages_which_may_be_read(tmp_path: Path) -> None:
    for name, counter in (("intel-rapl:0", "5000000"), ("intel-rapl:0:0", "1"), ("intel-rapl:1", None)):
        zone = tmp_path / name
        zone.mkdir()
        if counter:
            (zone / "energy_uj").write_text(counter)
            (zone / "max_energy_range_uj").write_text("262143000000")

    assert packages(tmp_path) == [(tmp_path / "intel-rapl:0" / "energy_uj", 262143.0)]
    assert packages(tmp_path / "nothing here") == []
