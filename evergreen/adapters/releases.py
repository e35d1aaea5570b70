"""Releases and their journal: law 3 where several writers meet.

A change is a compare-and-swap on the revision it was decided on, and its journal row in the same transaction; the
caller owns the transaction. What a legal change is says `evergreen/release.py`. MLflow's aliases mirror what is here.
"""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from evergreen.adapters.tables import JournalRow, ReleaseRow, insert_new
from evergreen.errors import InvalidTransition, ReleaseConflict, UnknownModel
from evergreen.release import noted, roll_back
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
        return None if row is None else _release(row)

    def models(self) -> list[str]:
        """Every model that has a release, by name."""
        return list(self._session.scalars(select(ReleaseRow.model).order_by(ReleaseRow.model)))

    def change(
        self,
        model: str,
        decide: Callable[[Release | None], Release],
        *,
        action: str,
        actor: str,
        reason: str,
        request: str | None = None,
    ) -> Release:
        """Decide on the release as it is now, and make it so; a decision that changes nothing is not journalled.

        Under a `request` that is in the journal already nothing is decided: what came of it then is returned, so that
        whoever died before hearing the answer may ask again. Raises what `decide` and `save` raise.
        """
        before = self.current(model)  # first: a change that comes between the two reads makes the swap fail
        if request is not None and (done := self._answered(model, request)) is not None:
            return done
        after = decide(before)
        if after == before:
            return after
        expected = None if before is None else before.revision
        return self.save(
            after,
            expected_revision=expected,
            action=action,
            actor=actor,
            reason=reason,
            at=after.changed_at,
            request=request,
        )

    def take_back(self, model: str, *, at: datetime, actor: str, reason: str, request: str | None = None) -> Release:
        """Drop the open challenger, or put the previous champion back where there is none; see `change`.

        Raises `UnknownModel` where there is no release, `InvalidTransition` where there is nothing to go back to.
        """

        def decide(current: Release | None) -> Release:
            if current is None:
                raise UnknownModel(f"{model} has no release yet: run `retrain` for it first")
            return roll_back(current, at=at)

        return self.change(model, decide, action="roll_back", actor=actor, reason=reason, request=request)

    def save(
        self,
        after: Release,
        *,
        expected_revision: int | None,
        action: str,
        actor: str,
        reason: str,
        at: datetime,
        request: str | None = None,
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
                request=request,
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

    def restore(self, model: str) -> str | None:
        """Make the release say what its journal says last; returns what differed, None when nothing did.

        A change writes both in one transaction, so they differ only where somebody wrote by hand.
        """
        last = select(func.max(JournalRow.revision)).where(JournalRow.model == model).scalar_subquery()
        both = (  # one statement sees one moment
            select(JournalRow.after, ReleaseRow)
            .outerjoin(ReleaseRow, ReleaseRow.model == JournalRow.model)
            .where(JournalRow.model == model, JournalRow.revision == last)
            .execution_options(populate_existing=True)
        )
        found = self._session.execute(both).one_or_none()
        if found is None:
            return None
        told = Release.model_validate(found[0])
        row = None if found[1] is None else _release(found[1])
        if row == told:
            return None
        if not self._swap(told, None if row is None else row.revision):
            return None  # somebody changes it at this moment, and writes both
        return f"its row was {'gone' if row is None else row.model_dump_json()}, its journal ends with {told.model_dump_json()}"

    def note(self, model: str, *, action: str, actor: str, reason: str, request: str) -> Release:
        """A journal row and a revision that change nothing, once a `request`. Raises `ReleaseConflict`, and `UnknownModel`."""

        def same(current: Release | None) -> Release:
            if current is None:
                raise UnknownModel(f"{model} has no release, so there is nothing to note about it")
            return noted(current)

        return self.change(model, same, action=action, actor=actor, reason=reason, request=request)

    def challenger_since(self, model: str) -> datetime | None:
        """Logical time at which the challenger that is open now was started; None where none is."""
        current, since = self.current(model), None
        for entry in reversed(self.journal(model)):
            if current is None or current.challenger is None or entry.after.challenger != current.challenger:
                break
            since = entry.at
        return since

    def journalled(self) -> list[str]:
        """Every model that ever had a release, by name."""
        return list(self._session.scalars(select(JournalRow.model).distinct().order_by(JournalRow.model)))

    def _answered(self, model: str, request: str) -> Release | None:
        after = self._session.scalar(
            select(JournalRow.after).where(JournalRow.model == model, JournalRow.request == request)
        )
        return None if after is None else Release.model_validate(after)

    def _swap(self, after: Release, expected_revision: int | None) -> bool:
        test = None if after.test is None else after.test.model_dump(mode="json")
        values = dict(after) | {"test": test}
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


def _release(row: ReleaseRow) -> Release:
    return Release.model_validate({name: getattr(row, name) for name in Release.model_fields})
