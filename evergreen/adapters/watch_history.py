"""Past looks of the watch with everything they saw: for pages and metrics, never for decisions.

Reads `drift_checks`, which `DriftChecks` writes. A look from before a report had today's parts is read with those empty.
"""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from evergreen.adapters.drift_checks import check_of
from evergreen.adapters.tables import DriftCheckRow
from evergreen.types import DriftReport, PerformanceReport, WatchRecord


class WatchHistory:
    """What the watch saw and decided, window by window."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def records(self, model: str, limit: int, before: datetime | None = None) -> list[WatchRecord]:
        """Newest window first, at most `limit`; of windows that ended up to `before`."""
        rows = select(DriftCheckRow).where(DriftCheckRow.model == model)
        if before is not None:
            rows = rows.where(DriftCheckRow.window_end <= before)
        rows = rows.order_by(DriftCheckRow.window_end.desc()).limit(limit)
        return [_record(row) for row in self._session.scalars(rows.execution_options(populate_existing=True))]

    def models(self) -> list[str]:
        """Every model that was ever looked at, by name."""
        return list(self._session.scalars(select(DriftCheckRow.model).distinct().order_by(DriftCheckRow.model)))


def _record(row: DriftCheckRow) -> WatchRecord:
    return WatchRecord(
        check=check_of(row),
        as_of=row.as_of,
        reasons=tuple(row.reasons),
        performance=PerformanceReport.model_validate(row.performance),
        drift=None if row.drift is None else DriftReport.model_validate(row.drift),
    )
