"""A simulated day and a simulated week: the same flows, the same serving, an older clock."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client

from evergreen.adapters.feature_tables import read_examples
from evergreen.errors import EvergreenError
from evergreen.types import Cause, Outcome, RetrainDecision, RetrainRequest, Window
from evergreen.wiring import Wiring
from flows.materialize import materialize
from flows.retrain import retrain
from flows.roll_out import roll_out
from flows.score_batch import score_batch
from flows.watch import watch

if TYPE_CHECKING:
    from demo.story import Timings

LIVE = timedelta(hours=1)
"""The part of each day that is asked over HTTP."""
RETRAIN_SECONDS = 300.0
ANSWERS = ("admitted", "done", "failed", "suppressed")
"""States of a request: what is still under way comes first."""


@dataclass(frozen=True)
class Retrain:
    """One retrain as the demo saw it."""

    request: RetrainRequest
    via: str
    seconds: float


@dataclass(frozen=True)
class Week:
    """What the watch said at the end of one simulated week."""

    window: Window
    decision: RetrainDecision | None
    retrains: tuple[Retrain, ...]


class Replay:
    """Plays days and weeks through the flows and keeps what happened."""

    def __init__(self, wire: Wiring, model: str, timings: "Timings", say: Callable[[str], None]) -> None:
        self.wire = wire
        self.spec = wire.spec(model)
        self.timings = timings
        self.say = say
        self.weeks: list[Week] = []
        self.first: Outcome | None = None
        self._http = httpx.Client(base_url=f"http://{wire.settings.host}:{wire.settings.serving_port}", timeout=30.0)
        self._needs: list[str] = []
        self._scored_until: datetime

    def history(self, as_of: datetime) -> None:
        """Raw and feature tables up to `as_of`, while the stack comes up; the first retrain finds them done."""
        pipeline = self.wire.pipeline(self.spec)
        pipeline.ingest(self.wire.settings.data, as_of)
        pipeline.build(self.wire.settings.data, as_of)

    def retrain(self, as_of: datetime, cause: Cause, on_line: Callable[[str], None]) -> Outcome:
        """The first model, by the flow itself; its log lines go to `on_line`."""
        with _LogLines(on_line):
            outcome = retrain(self.spec.name, as_of, cause)
        if outcome.release is None:
            raise EvergreenError(f"the first model did not pass its gate: {'; '.join(outcome.reasons)}")
        self.first, self._scored_until = outcome, as_of
        self._await_serving(outcome.release.champion)
        return outcome

    def day(self, at: datetime) -> None:
        """Everything that happens between the same hour yesterday and `at`."""
        name = self.spec.name
        with self.timings.stage("materialize"):
            materialize(name, at)
        with self.timings.stage("http"):
            self._ask_over_http(at)
        with self.wire.records() as records:
            release = records.releases.current(name)
        if release is not None and release.challenger is not None:
            self._score_until(at)  # before the release may change: each flight is answered by who served at its moment
            with self.timings.stage("roll_out"):
                after = roll_out(name, "advance", at)
                if after.champion != release.champion:
                    self.say(f"  {at:%d %b}  version {after.champion} is champion, {after.previous} the previous one")
                    self._await_serving(after.champion)

    def week(self, start: datetime, end: datetime) -> None:
        """The watch at the end of a week, and what it starts."""
        self._score_until(end)
        with self.timings.stage("watch"):
            decision = watch(self.spec.name, end)
        retrains: tuple[Retrain, ...] = ()
        if decision is not None and decision.retrain:
            self.say(f"  {end:%d %b}  " + "; ".join(alarm.reason for alarm in decision.alarms))
            with self.timings.stage("retrain"):
                retrains = (self._await_retrain(decision),)
            self.say(f"  {end:%d %b}  {retrains[0].via}: {retrains[0].request.status}, {retrains[0].request.reason}")
        self.weeks.append(Week(Window(start=start, end=end), decision, retrains))

    def _score_until(self, at: datetime) -> None:
        """Score in bulk what was not asked over HTTP since the last time; with a challenger open a week's last day has done it."""
        if at <= self._scored_until:
            return
        with self.timings.stage("score_batch"):
            score_batch(self._scored_until, at, self.spec.name)
        self._scored_until = at

    def serving_now(self) -> str:
        """Who serves, in a few words."""
        with self.wire.records() as records:
            release = records.releases.current(self.spec.name)
        if release is None:
            return "nobody serves"
        words = f"version {release.champion} serves"
        return words + (f", {release.challenger} takes {release.challenger_share:.0%}" if release.challenger else "")

    def _ask_over_http(self, at: datetime) -> None:
        frame = read_examples(self.wire.settings.data, self.spec, Window(start=at, end=at + LIVE), at)
        columns = ["example_id", *self._request_columns()]
        rows = [
            {str(name): v.isoformat() if isinstance(v, datetime) else v for name, v in row.items()}
            for row in frame[columns].astype(object).to_dict("records")
        ]
        if rows:
            body = {"rows": rows, "as_of": at.isoformat()}
            answer = self._http.post(f"/predict/{self.spec.name}", json=body)
            if answer.status_code != 200:
                raise EvergreenError(f"serving answered {answer.status_code}: {answer.text[:500]}")

    def _request_columns(self) -> list[str]:
        if not self._needs:
            served = {model["model"]: model for model in self._http.get("/models").json()}
            self._needs = list(served[self.spec.name]["needs"])
        return self._needs

    def _await_serving(self, champion: int | None) -> None:
        """Serving follows the release within its poll interval; the demo waits so that each day has one champion."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            served = {model["model"]: model for model in self._http.get("/models").json()}
            now = served.get(self.spec.name, {}).get("serving")
            if now and now["champion"] == champion:
                return
            time.sleep(0.1)
        raise EvergreenError(f"serving did not take version {champion} within 60 s; see reports/demo-stack.log")

    def _await_retrain(self, decision: RetrainDecision) -> Retrain:
        """The event is out; Prefect's automation makes the run and the worker starts it. Wait for what comes of it."""
        started = time.monotonic()
        while time.monotonic() - started < RETRAIN_SECONDS:
            with self.wire.records() as records:
                asked = records.admissions.recent(self.spec.name)
            # Automations fire at least once: of several asks, the one that was admitted tells what came of it.
            of_this_event = sorted(
                (r for r in asked if r.as_of == decision.as_of), key=lambda r: ANSWERS.index(r.status)
            )
            if of_this_event and of_this_event[0].status != "admitted":
                request = of_this_event[0]
                return Retrain(request, _started_by(request.request_id), time.monotonic() - started)
            time.sleep(0.25)
        raise EvergreenError(
            f"no retrain answered the event of {decision.episode} within {RETRAIN_SECONDS:.0f} s; see reports/demo-stack.log"
        )


def _started_by(flow_run_id: str) -> str:
    """Who made this flow run, in Prefect's own words."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(flow_run_id))
    maker = run.created_by
    return f"{(maker.type or 'unknown').lower()} {maker.display_value}" if maker else "unknown"


class _LogLines:
    """Send the flow runs' log lines to a callback while the block lasts."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._handler = logging.Handler(logging.INFO)
        self._handler.emit = lambda record: on_line(record.getMessage()[:90])  # type: ignore[method-assign]
        self._loggers = [logging.getLogger("prefect.task_runs"), logging.getLogger("prefect.flow_runs")]

    def __enter__(self) -> None:
        for logger in self._loggers:
            logger.addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        for logger in self._loggers:
            logger.removeHandler(self._handler)
