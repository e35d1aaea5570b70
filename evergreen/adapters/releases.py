"""Releases and their journal: law 3 where several writers meet.

A change is a compare-and-swap on the revision it was decided on, and its journal row in the same transaction; the
caller owns the transaction. What a legal change is says `evergreen/release.py`. MLflow's aliases mirror what is here.
"""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from evergreen.adapters.tables import JournalRow, ReleaseRow, insert_new
from evergreen.errors import InvalidTransition, ReleaseConflict
from evergreen.types import JournalEntry, Release


class ReleaseStore:
    """Which version serves what share, and how it came to that."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def current(self, model: str) -> Release | None:
        """The release now; None before the first version is started."""
        row = self._session.scalar(
            select(ReleaseRow).where(ReleaseRow.model == model).execution_options(populate_existing=True)
        )
        return (
            None if row is None else Release.model_validate({name: getattr(row, name) for name in Release.model_fields})
        )

    def models(self) -> list[str]:
        """Every model that has a release, by name."""
        return list(self._session.scalars(select(ReleaseRow.model).order_by(ReleaseRow.model)))

    def save(
        self, after: Release, *, expected_revision: int | None, action: str, actor: str, reason: str, at: datetime
    ) -> Release:
        """Make `after` the release if nobody changed it since `expected_revision` (None: there was no release).

        Returns the release as stored. Raises `ReleaseConflict`, naming who was first, and changes nothing when
        somebody did; raises `InvalidTransition` when `after` is not the revision that follows.
        """
        following = (expected_revision or 0) + 1
        if after.revision != following:
            raise InvalidTransition(
                f"{after.model}: revision {after.revision} cannot follow {expected_revision}; it must be {following}. "
                "Make the change with evergreen.release from the release that was read."
            )
        before = self.current(after.model)
        if not self._swap(after, expected_revision):
            raise ReleaseConflict(self._who_was_first(after, expected_revision))
        self._session.add(
            JournalRow(
                model=after.model,
                revision=after.revision,
                action=action,
                actor=actor,
                reason=reason,
                at=at,
                before=None if before is None else before.model_dump(mode="json"),
                after=after.model_dump(mode="json"),
            )
        )
        self._session.flush()
        return after

    def journal(self, model: str) -> list[JournalEntry]:
        """Every change of the model's release, oldest first: revisions 1, 2, 3 …"""
        rows = select(JournalRow).where(JournalRow.model == model).order_by(JournalRow.revision)
        return [
            JournalEntry.model_validate({name: getattr(row, name) for name in JournalEntry.model_fields})
            for row in self._session.scalars(rows)
        ]

    def _swap(self, after: Release, expected_revision: int | None) -> bool:
        values = dict(after)
        if expected_revision is None:
            return insert_new(self._session, ReleaseRow, [values]) == 1
        swap = (
            update(ReleaseRow)
            .where(ReleaseRow.model == after.model, ReleaseRow.revision == expected_revision)
            .values(values)
            .execution_options(synchronize_session=False, preserve_rowcount=True)
        )
        return self._session.connection().execute(swap).rowcount == 1

    def _who_was_first(self, after: Release, expected_revision: int | None) -> str:
        last = self._session.scalar(
            select(JournalRow).where(JournalRow.model == after.model).order_by(JournalRow.revision.desc()).limit(1)
        )
        found = (
            "no release (was it deleted?)"
            if last is None
            else f"revision {last.revision}: {last.action} by {last.actor} as of {last.at.isoformat()} ({last.reason})"
        )
        return (
            f"{after.model}: the change was decided on revision {expected_revision or 'none'}, but the release is at "
            f"{found}. Read it again and decide again."
        )
