"""What the watch saw and decided, for the decisions that follow.

Repository over `drift_checks`; the caller owns the transaction. `watch_history.py` reads the same rows with all they hold.
"""

from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from evergreen.adapters.database import lock
from evergreen.adapters.tables import DriftCheckRow
from evergreen.types import Cause, DriftReport, PerformanceReport, Remedy, RetrainDecision, WatchCheck, Window


class DriftChecks:
    """What the watch saw and decided, one row a window."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(self, decision: RetrainDecision, drift: DriftReport | None, performance: PerformanceReport) -> None:
        """Store one look; looking at the same window again replaces it."""
        lock(self._session, f"watch:{decision.model}")
        self._session.merge(
            DriftCheckRow(
                model=decision.model,
                window_end=performance.window.end,
                window_start=performance.window.start,
                as_of=decision.as_of,
                version=performance.version,
                retrain=decision.retrain,
                episode=decision.episode,
                alarms=[alarm.model_dump(mode="json") for alarm in decision.alarms],
                reasons=list(decision.reasons),
                remedy=decision.remedy.value,
                report_uri=None if drift is None else drift.uri,
                drift=None if drift is None else drift.model_dump(mode="json"),
                performance=performance.model_dump(mode="json"),
            )
        )
        self._session.flush()

    def history(self, model: str, before: datetime, limit: int) -> list[WatchCheck]:
        """Looks at windows that ended before `before`, newest first, at most `limit`."""
        rows = (
            select(DriftCheckRow)
            .where(DriftCheckRow.model == model, DriftCheckRow.window_end < before)
            .order_by(DriftCheckRow.window_end.desc())
            .limit(limit)
        )
        return [check_of(row) for row in self._session.scalars(rows)]

    def open_faults(self, model: str, as_of: datetime) -> tuple[str, ...]:
        """What the newest look up to `as_of` said of broken data; empty once a later look says nothing of it."""
        newest = self.history(model, as_of + timedelta(microseconds=1), 1)
        alarms = newest[0].alarms if newest else ()
        return tuple(alarm.reason for alarm in alarms if alarm.trigger == Cause.FAULT)

    def of_episode(self, model: str, episode: str) -> WatchCheck | None:
        """The newest look that belongs to an episode; None when no alarm opened it."""
        rows = (
            select(DriftCheckRow)
            .where(DriftCheckRow.model == model, DriftCheckRow.episode == episode)
            .order_by(DriftCheckRow.window_end.desc())
            .limit(1)
        )
        row = self._session.scalars(rows).first()
        return None if row is None else check_of(row)


def check_of(row: DriftCheckRow) -> WatchCheck:
    """One look as decisions need it."""
    return WatchCheck(
        model=row.model,
        version=row.version,
        window=Window(start=row.window_start, end=row.window_end),
        alarms=tuple(row.alarms),
        retrain=row.retrain,
        episode=row.episode,
        report_uri=row.report_uri,
        remedy=Remedy(row.remedy),
    )
