"""What happened, as figures: `reports/demo.json` and the table at the end."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
from prefect.client.orchestration import get_client
from rich.table import Table

from demo.replay import Replay, Week
from evergreen.evaluation import score_rows
from evergreen.training.predictor import Predictor
from evergreen.types import Evaluation, RetrainRequest
from tasks.watch import bring_outcomes

MATURITY = timedelta(days=2)
"""After the last week's end nearly every outcome is in."""


def retold(replay: Replay) -> dict[str, Any]:
    """Everything `reports/demo.json` holds but the timings."""
    assert replay.first is not None
    assert replay.first.version is not None
    end = replay.weeks[-1].window.end + MATURITY
    replay.history(end)
    wire = replay.wire
    bring_outcomes(wire, replay.spec, end)
    frozen = Predictor.load(
        wire.registry.fetch(replay.first.version, wire.settings.models_cache), replay.first.version.artifact
    )
    with wire.records() as records:
        journal = records.releases.journal(replay.spec.name)
        frames = [records.predictions.frame(replay.spec.name, week.window, end) for week in replay.weeks]
    releases = [
        {
            "at": entry.at.isoformat(),
            "action": entry.action,
            "revision": entry.revision,
            "champion": entry.after.champion,
            "challenger": entry.after.challenger,
            "share": entry.after.challenger_share,
            "reason": entry.reason,
        }
        for entry in journal
    ]
    return {
        "model": replay.spec.name,
        "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "span": {"start": replay.weeks[0].window.start.isoformat(), "end": replay.weeks[-1].window.end.isoformat()},
        "weeks": [
            _week(replay, number, week, frame, frozen, releases)
            for number, (week, frame) in enumerate(zip(replay.weeks, frames, strict=True), start=1)
        ],
        "retrains": _retrains(replay),
        "releases": releases,
        "orchestration": orchestration(),
    }


def _week(
    replay: Replay, number: int, week: Week, frame: pd.DataFrame, frozen: Predictor, releases: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    labelled = frame[frame["label"].notna()]
    columns = {name: labelled[name].to_numpy() for name in frozen.inputs}
    now = next(r for r in reversed(releases) if datetime.fromisoformat(r["at"]) <= week.window.end)
    return {
        "week": number,
        "start": week.window.start.isoformat(),
        "end": week.window.end.isoformat(),
        "flights": len(frame),
        "labelled": len(labelled),
        "served": _figures(labelled["label"], labelled["score"]),
        "frozen": _figures(labelled["label"], frozen.score(columns)),
        "alarms": [alarm.model_dump(mode="json") for alarm in week.decision.alarms] if week.decision else [],
        "retrains": [
            {
                "cause": r.request.cause,
                "verdict": _verdict(replay, r.request),
                "version": r.request.version,
                "reason": r.request.reason,
            }
            for r in week.retrains
        ],
        "serving": {"champion": now["champion"], "challenger": now["challenger"], "share": now["share"]},
    }


def _figures(labels: Any, scores: Any) -> dict[str, float]:
    figures = score_rows(pd.Series(labels).to_numpy(dtype=int), pd.Series(scores).to_numpy(dtype=float))
    return {
        "log_loss": figures["log_loss"],
        "auc": figures["auc"],
        "calibration_gap": figures["mean_score"] - figures["base_rate"],
    }


def _retrains(replay: Replay) -> list[dict[str, Any]]:
    """The first model and every retrain, oldest first, with its gate."""
    assert replay.first is not None
    asked = [(replay.first.request, "called by the demo", replay.timings.seconds["first_model"])]
    asked += [(r.request, r.via, r.seconds) for week in replay.weeks for r in week.retrains]
    return [_retrain(replay, request, via, seconds) for request, via, seconds in asked]


def _retrain(replay: Replay, request: RetrainRequest, via: str, seconds: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "as_of": request.as_of.isoformat(),
        "cause": request.cause,
        "episode": request.episode,
        "verdict": _verdict(replay, request),
        "version": request.version,
        "via": via,
        "flow_run_id": request.request_id,
        "reasons": [request.reason],
        "checks": [],
        "candidate": None,
        "champion": None,
        "seconds": round(seconds, 3),
    }
    if request.version is None:
        return told
    registry = replay.wire.registry
    version = registry.version(replay.spec.name, request.version)
    candidate, champion, decision = registry.judgement(version)
    told["reasons"] = list(decision.reasons) or [request.reason]
    told["checks"] = [check.model_dump(mode="json") for check in decision.checks]
    told["candidate"], told["champion"] = _overall(candidate), _overall(champion)
    return told


def _overall(evaluation: Evaluation | None) -> dict[str, float] | None:
    if evaluation is None:
        return None
    return {name: evaluation.overall[name] for name in ("log_loss", "auc")}


def _verdict(replay: Replay, request: RetrainRequest) -> str:
    if request.status != "done":
        return request.status
    assert request.version is not None
    return "passed" if replay.wire.registry.version(request.model, request.version).passed else "refused"


def orchestration() -> dict[str, float]:
    """Seconds of this demo's flow runs, and of them those spent outside the bodies of their tasks, as Prefect timed them."""
    inside = whole = 0.0
    flows = tasks = 0
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(limit=200, offset=flows):
            whole += sum(run.total_run_time.total_seconds() for run in page)
            flows += len(page)
        while task_page := client.read_task_runs(limit=200, offset=tasks):
            inside += sum(run.total_run_time.total_seconds() for run in task_page)
            tasks += len(task_page)
    return {
        "flow_runs": flows,
        "task_runs": tasks,
        "flow_seconds": round(whole, 3),
        "outside_tasks_seconds": round(whole - inside, 3),
        "share": round((whole - inside) / whole, 4) if whole else 0.0,
    }


def _in_short(retrain: dict[str, Any]) -> str:
    return f"version {retrain['version']} {retrain['verdict']}" if retrain["version"] else str(retrain["verdict"])


def table(story: dict[str, Any]) -> Table:
    """One row a simulated week."""
    shown = Table(title=f"{story['model']}: what served beside the first champion, had it stayed", title_justify="left")
    for name in ("week", "from", "flights", "log loss", "frozen", "AUC", "frozen", "alarms", "retrains", "serves"):
        shown.add_column(
            name, justify="left" if name in ("from", "alarms", "retrains", "serves") else "right", overflow="fold"
        )
    for week in story["weeks"]:
        served, frozen, serving = week["served"], week["frozen"], week["serving"]
        better = "[green]" if served["log_loss"] < frozen["log_loss"] - 1e-9 else ""
        challenger = f" + {serving['challenger']} at {serving['share']:.0%}" if serving["challenger"] else ""
        shown.add_row(
            str(week["week"]),
            week["start"][:10],
            f"{week['flights']:,}",
            f"{better}{served['log_loss']:.4f}",
            f"{frozen['log_loss']:.4f}",
            f"{served['auc']:.3f}",
            f"{frozen['auc']:.3f}",
            "\n".join(alarm["reason"].partition(", ")[0] for alarm in week["alarms"]) or "—",
            "\n".join(_in_short(retrain) for retrain in week["retrains"]) or "—",
            f"version {serving['champion']}{challenger}",
        )
    return shown
