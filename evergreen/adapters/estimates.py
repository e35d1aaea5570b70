"""What was said of a window before its outcomes were in, and what came true: both stay on record.

A repository over `window_estimates`; the caller owns the transaction. What is said stands: asking again about the same
window of the same version changes nothing, so nobody who knows the outcomes can improve an estimate. What came true is
written anew as more outcomes come in.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from evergreen.adapters.database import insert_new
from evergreen.adapters.tables import WindowEstimateRow
from evergreen.types import Window, WindowEstimate


class WindowEstimates:
    """Estimates of windows, by model, version and end of the window."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def record(self, said: WindowEstimate) -> bool:
        """Keep what was said of a window; False where something was said of it before, which stands."""
        row = {
            "model": said.model,
            "window_end": said.window.end,
            "version": said.version,
            "window_start": said.window.start,
            "as_of": said.as_of,
            "said": said.model_dump(mode="json", exclude={"realised", "realised_as_of"}),
        }
        return insert_new(self._session, WindowEstimateRow, [row]) == 1

    def reconcile(
        self, model: str, version: int, window: Window, realised: Mapping[str, float], as_of: datetime
    ) -> None:
        """Write beside an estimate what came true as known at `as_of`; what an earlier moment knew is replaced."""
        self._session.execute(
            update(WindowEstimateRow)
            .where(
                WindowEstimateRow.model == model,
                WindowEstimateRow.version == version,
                WindowEstimateRow.window_end == window.end,
                WindowEstimateRow.realised_as_of.is_(None) | (WindowEstimateRow.realised_as_of < as_of),
            )
            .values(realised=dict(realised), realised_as_of=as_of)
            .execution_options(synchronize_session=False)
        )

    def history(self, model: str, limit: int, before: datetime | None = None) -> list[WindowEstimate]:
        """Newest window first, at most `limit`; of windows that ended up to `before`."""
        rows = select(WindowEstimateRow).where(WindowEstimateRow.model == model)
        if before is not None:
            rows = rows.where(WindowEstimateRow.window_end <= before)
        rows = rows.order_by(WindowEstimateRow.window_end.desc(), WindowEstimateRow.version.desc()).limit(limit)
        return [
            WindowEstimate.model_validate(
                {**row.said, "realised": row.realised, "realised_as_of": row.realised_as_of}, strict=False
            )
            for row in self._session.scalars(rows.execution_options(populate_existing=True))
        ]
