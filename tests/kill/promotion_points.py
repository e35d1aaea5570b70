"""`python -m tests.kill.promotion_points HOME [OPERATION…]`: kill what changes a release at every call it makes.

The points are found by walking: in a forked child every call of MLflow's client and every statement on Evergreen's tables
that may change something, every commit, and every link and rename of a file under the home is counted; a run that is not
killed says how many there are. Then each operation is run once a point and killed with -9 just before it (and after the
last), and run again, while a reader polls both databases. Prints one JSON line a point. Everything heavy is imported once,
here; nothing is open when it forks.

A roll out and an A/B test go the whole way of their flows: answers, outcomes, judgement, change, mirror.
"""

import importlib
import json
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import Engine, event

from evergreen import ab_test
from evergreen.adapters.reconciler import reconcile, show
from evergreen.monitoring.arms import compare_arms
from evergreen.monitoring.performance import live_figures
from evergreen.monitoring.shadow import paired_days
from evergreen.release import start, start_test, step
from evergreen.rollout import follow, judge
from evergreen.settings import ROOT, Settings
from evergreen.spec import AbTestConfig, ReleaseConfig
from evergreen.training.artifact import write_artifact
from evergreen.types import Cause, Release
from evergreen.wiring import Wiring
from serving.routing import roles
from tests.factories import DAY, MAY, a_gate_decision, a_prediction, a_trained_model, an_evaluation

MODEL = "flight_delay"
READS = ("_", "get", "search", "list", "download", "load")
"""Just before one of these the world is as it was after the call before."""
Operation = Callable[[Wiring], object]
TOLD = "model, revision, action, actor, reason, at, before, after, request"
"""Of the journal: all but the moment on the wall."""


def register(wire: Wiring, content: str) -> None:
    """What the task `register` does."""
    path = wire.settings.home / "made" / content
    path.parent.mkdir(exist_ok=True)
    digest = write_artifact(path, {"model.json": b"{}", "weights.safetensors": content.encode() * 1000})
    candidate = a_trained_model(uri=str(path), digest=digest)
    wire.registry.register(
        candidate,
        an_evaluation(),
        None,
        a_gate_decision(),
        Cause.PERSON,
        wire.spec(MODEL),
        {"prefect.flow_run_id": "f"},
    )


def change(wire: Wiring, action: str, decide: Callable[[Release | None], Release]) -> None:
    """What the tasks of `tasks/release.py` do, under one flow run's name, with the mirror that follows."""
    with wire.records() as records:
        records.releases.change(MODEL, decide, action=action, actor="a test", reason="", request=f"run/{action}")
    show(wire.engine, wire.registry, MODEL)


def of(release: Release | None) -> Release:
    """There is one."""
    assert release is not None
    return release


def answer(wire: Wiring, first_day: int, days: int, *, tested: bool = False) -> None:
    """What serving logs: version 2 beside version 1, or each on its arm; a little better where it is tested."""
    with wire.records() as records:
        release = of(records.releases.current(MODEL))
    found = []
    for number in range(days * A_DAY):
        name = f"{first_day}/{number}"
        version = 2 if tested and roles(release, [name])[0] == "challenger" else 1
        said = a_prediction(
            prediction_id=name,
            example_id=name,
            at=MAY + first_day * DAY + number * DAY / A_DAY,
            version=version,
            score=0.75 if version == 2 else 0.7,
        )
        more = {"routed_by": name} if tested else {"shadow_version": 2, "shadow_score": 0.7 + number % 7 / 1e4}
        found.append(said.model_copy(update=more | ({} if tested else {"shadow_latency_ms": 1.0})))
    with wire.records() as records:
        records.predictions.record(found)


def outcomes(wire: Wiring, as_of_day: int) -> None:
    """All that are waited for; each was a yes."""
    with wire.records() as records:
        waiting = records.predictions.waiting(MODEL, MAY + as_of_day * DAY)
        known = waiting.assign(label=1.0, label_timestamp=waiting["event_timestamp"])
        records.predictions.record_outcomes(MODEL, known)


def roll_out(wire: Wiring) -> None:
    """What the flow does: proof is in, and the challenger is promoted."""
    now = MAY + 8 * DAY
    outcomes(wire, 8)
    with wire.records() as records:
        release = of(records.releases.current(MODEL))
        since = records.releases.challenger_since(MODEL)
        frame = records.predictions.since(MODEL, since or now, now)
    if release.challenger is not None:  # else the run before got so far
        pairs = paired_days(frame, champion=1, challenger=2, as_of=now, min_label_share=0.8)
        config = ReleaseConfig(steps=(0.1, 0.5, 1.0))
        live = [live_figures(frame, version) for version in (1, 2)]
        decision = judge(release, live[0], live[1], config, now, list(pairs.values()), since)
        assert decision.action == "promote", decision.reasons
        change(wire, "promote", lambda current: follow(of(current), decision, config, now))
    show(wire.engine, wire.registry, MODEL)


def begin_test(wire: Wiring) -> None:
    """What the flow does when it is given a version."""
    wire.registry.servable(MODEL, 2)
    config, at = AbTestConfig(min_days=3, min_rows=100), MAY + 10 * DAY

    def begin(now: Release | None) -> Release:
        if now is not None and now.test is not None and now.challenger == 2:
            return now
        return start_test(now, version=2, share=0.5, test=ab_test.plan(config, now, 2, at), at=at)

    change(wire, "ab_test", begin)


def end_test(wire: Wiring) -> None:
    """What the flow does when the test that runs is decided."""
    now = MAY + 15 * DAY
    outcomes(wire, 15)
    with wire.records() as records:
        release = of(records.releases.current(MODEL))
        frame = records.predictions.since(MODEL, MAY + 10 * DAY, now)
    if release.test is not None:
        figures = compare_arms(frame, champion=1, challenger=2, as_of=now, min_label_share=0.8)
        decision = ab_test.judge(release, figures, live_figures(frame, 2), ReleaseConfig(), now)
        assert decision.verdict == "promote", decision.reasons
        change(wire, "ab_promote", lambda current: ab_test.follow(of(current), decision, now))
    show(wire.engine, wire.registry, MODEL)


def take_back(wire: Wiring) -> None:
    """What a rollback does, on the command line and over HTTP."""
    with wire.records() as records:
        records.releases.take_back(MODEL, at=MAY + 9 * DAY, actor="a test", reason="", request="run/roll_back")
    show(wire.engine, wire.registry, MODEL)


def first(wire: Wiring) -> None:
    """The first version, registered and released."""
    change(wire, "start", lambda now: start(now, model=MODEL, version=1, share=0.1, at=MAY))


OPERATIONS: tuple[tuple[str, Operation], ...] = (
    ("register", lambda wire: register(wire, "a")),
    ("release the first", first),
    ("register a successor", lambda wire: register(wire, "b")),
    (
        "roll out",
        lambda wire: change(wire, "canary", lambda now: start(now, model=MODEL, version=2, share=0.1, at=MAY + DAY)),
    ),
    ("step", lambda wire: change(wire, "advance", lambda now: step(of(now), share=0.5, at=MAY + 2 * DAY))),
    ("answer", lambda wire: answer(wire, 2, 5)),
    ("promote", roll_out),
    ("roll back", take_back),
    ("begin an A/B test", begin_test),
    ("answer on two arms", lambda wire: answer(wire, 10, 4, tested=True)),
    ("end the A/B test", end_test),
    ("a hand", lambda wire: wire.registry.client.set_registered_model_alias(MODEL, "champion", "1")),
    ("put right", lambda wire: reconcile(wire.engine, wire.registry)),
)
"""Each goes on where the one before it ended."""
CHAMPIONS: dict[str, set[int]] = {
    "roll out": {1},
    "step": {1},
    "answer": {1},
    "promote": {1, 2},
    "roll back": {1, 2},
    "begin an A/B test": {1},
    "answer on two arms": {1},
    "end the A/B test": {1, 2},
    "a hand": {1, 2},
    "put right": {1, 2},
}
"""Who may be champion while the operation runs; where it is not named there may be none yet."""
A_DAY = 120
"""Answers."""


class Crossings:
    """Counts the calls that leave the process, and ends it with -9 just before one of them."""

    def __init__(self, home: Path, fatal: int | None) -> None:
        self.names: list[str] = []
        self._home = str(home)
        self._fatal = fatal
        self._inside = False

    def watch(self) -> None:
        """From now on."""
        for name in [name for name in dir(MlflowClient) if not name.startswith(READS)]:
            real = getattr(MlflowClient, name)
            if callable(real):
                setattr(MlflowClient, name, self._counted(name, real))
        event.listen(Engine, "before_cursor_execute", self._statement)
        event.listen(Engine, "commit", lambda connection: self._ours(connection, "commit"))
        sys.addaudithook(self._file)

    def cross(self, name: str) -> None:
        """The call `name` comes now."""
        if len(self.names) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.names.append(name)

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **given: Any) -> Any:
            if self._inside:  # MLflow's client calls itself
                return real(*args, **given)
            self.cross(f"mlflow {name}")
            self._inside = True
            try:
                return real(*args, **given)
            finally:
                self._inside = False

        return call

    def _statement(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("SELECT"):
            self._ours(connection, " ".join(statement.split()[:3]))

    def _ours(self, connection: Any, name: str) -> None:
        if str(connection.engine.url.database).endswith("evergreen.db"):
            self.cross(f"tables {name}")

    def _file(self, name: str, args: tuple[Any, ...]) -> None:
        if name in ("os.rename", "os.link") and str(args[1]).startswith(self._home) and not self._inside:
            self.cross(f"{name} {Path(str(args[1])).name}")


def in_child(work: Callable[[], object]) -> int:
    """Run in a fork; returns the signal that ended it, 0 when nothing did."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            print(f"failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), f"a child ended with {status}"
    return status


def run(home: Path, operation: Operation, fatal: int | None = None) -> list[str]:
    """The operation in a child, killed before call number `fatal`; returns the calls it made when it was not."""
    told = home / "calls.json"

    def work() -> None:
        wire = Wiring(Settings(home=home, models_dir=ROOT / "models"))
        _ = wire.engine, wire.registry  # opening is no step of the operation
        crossings = Crossings(home, fatal)
        crossings.watch()
        operation(wire)
        if fatal is not None:
            os.kill(os.getpid(), signal.SIGKILL)  # after the last
        told.write_text(json.dumps(crossings.names))
        (home / "modules.json").write_text(json.dumps(sorted(sys.modules)))

    killed = in_child(work)
    assert bool(killed) == (fatal is not None)
    if killed:
        return []
    for module in json.loads((home / "modules.json").read_text()):  # the vendors import late: once, here, is enough
        with suppress(Exception):
            importlib.import_module(module)
    return list(json.loads(told.read_text()))


def state(home: Path) -> dict[str, Any]:
    """Everything that must be the same in the end, and is not a name drawn by chance."""
    with sqlite3.connect(f"file:{home}/evergreen.db?mode=ro", uri=True) as tables:
        found: dict[str, Any] = {
            "release": tables.execute("SELECT * FROM releases").fetchall(),
            "journal": tables.execute(f"SELECT {TOLD} FROM release_journal ORDER BY revision").fetchall(),
            "answers": tables.execute("SELECT count(*), count(routed_by) FROM predictions").fetchall(),
            "outcomes": tables.execute("SELECT count(*) FROM outcomes").fetchall(),
        }
    with sqlite3.connect(f"file:{home}/mlflow.db?mode=ro", uri=True) as registry:
        for name, query in {
            "aliases": "SELECT alias, version FROM registered_model_aliases ORDER BY alias",
            "told": "SELECT value FROM registered_model_tags WHERE key = 'evergreen.release'",
            "versions": "SELECT version, status FROM model_versions ORDER BY version",
            "sealed": "SELECT version FROM model_version_tags WHERE key = 'evergreen.seal' ORDER BY version",
            "runs": "SELECT status FROM runs",
            "models": "SELECT status FROM logged_models",
            "metrics": "SELECT count(*) FROM metrics",
        }.items():
            found[name] = registry.execute(query).fetchall()
    found["keys"] = len(list((home / "keys" / "trusted").glob("*.pem")))
    return found


def poll(home: Path, champions: set[int] | None) -> None:
    """Read both databases until the file `stop` is there; raises at the first instant without one champion.

    Its first look, before the file `looking` is there, is before the operation begins and its last after the end; raises
    where there was none between.
    """
    tables = sqlite3.connect(f"file:{home}/evergreen.db?mode=ro", uri=True)
    registry = sqlite3.connect(f"file:{home}/mlflow.db?mode=ro", uri=True)
    looks, over = 0, False
    while not over:
        over = (home / "stop").exists()
        rows = [row[0] for row in tables.execute("SELECT champion FROM releases")]
        shown = [
            row[0] for row in registry.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'")
        ]
        for found in (rows, shown):
            assert len(found) <= 1, found
            assert champions is None or (len(found) == 1 and found[0] in champions), (rows, shown)
        looks += 1
        (home / "looking").touch()
        time.sleep(0.002)
    assert looks > 2, f"it looked {looks} times, and never while something was done"


def kill_at(base: Path, home: Path, operation: Operation, fatal: int, champions: set[int] | None) -> dict[str, Any]:
    """Kill at one point of a copy of `base`, run again, and return the state; a reader looks on."""
    shutil.copytree(base, home)
    reader = os.fork()
    if reader == 0:
        try:
            poll(home, champions)
        except BaseException as error:
            print(f"the reader saw: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    while not (home / "looking").exists():
        assert os.waitpid(reader, os.WNOHANG) == (0, 0), "the reader saw an instant without one champion"
        time.sleep(0.002)
    run(home, operation, fatal)
    run(home, operation)
    (home / "stop").touch()
    _, status = os.waitpid(reader, 0)
    assert status == 0, "the reader saw an instant without one champion, or nothing"
    found = state(home)
    shutil.rmtree(home)
    return found


def main() -> None:
    """Walk all operations, and kill those that are named, or each."""
    work, named = Path(sys.argv[1]), sys.argv[2:]
    base = work / "base"
    base.mkdir(parents=True)
    run(base, lambda _: None)  # makes both databases
    for name, operation in OPERATIONS:
        after = work / "".join(letter if letter.isalnum() else "-" for letter in name)
        shutil.copytree(base, after)
        calls = run(after, operation)
        wanted = state(after)
        for fatal in range(len(calls) + 1) if not named or name in named else ():
            found = kill_at(base, work / "killed", operation, fatal, CHAMPIONS.get(name))
            point = f"before {calls[fatal]}" if fatal < len(calls) else f"after {calls[-1]}"
            differs = {key: (found[key], wanted[key]) for key in wanted if found[key] != wanted[key]}
            print(json.dumps({"operation": name, "number": fatal, "point": point, "differs": differs}), flush=True)
        base = after


if __name__ == "__main__":
    main()
