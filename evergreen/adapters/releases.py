"""Releases and their journal: law 3 where several writers meet.

A change is a compare-and-swap on the revision it was decided on, and its journal row in the same transaction; the
caller owns the transaction. What a legal change is says `evergreen/release.py`. MLflow's aliases mirror what is here.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from evergreen.adapters.database import insert_new
from evergreen.adapters.tables import JournalRow, ReleaseRow
from evergreen.errors import InvalidTransition, ReleaseConflict, UnknownModel
from evergreen.release import noted, roll_back, told
from evergreen.types import JournalEntry, Release, TakenBack

AGAIN_AFTER = timedelta(minutes=10)
"""Whoever takes back sooner after a roll-back has most likely not heard of it: a call that timed out, a colleague."""


class ReleaseStore:
    """Which version serves what share, and how it came to that; `wall_clock` says when it was written down."""

    def __init__(self, session: Session, wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._session = session
        self._wall_clock = wall_clock

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

    def take_back(
        self,
        model: str,
        *,
        at: datetime,
        actor: str,
        reason: str,
        request: str | None = None,
        again: bool = False,
    ) -> TakenBack:
        """Drop the open challenger, or put the previous champion back where there is none; see `change`.

        Right after a roll-back (`AGAIN_AFTER`) nothing is changed and its result tells of that one, unless `again` says
        that one further back is meant; of a `request` that was answered before it tells what was changed since. Raises
        `UnknownModel` where there is no release, `InvalidTransition` where there is nothing to go back to.
        """
        already: str | None = None
        is_answered_before = True

        def decide(current: Release | None) -> Release:
            nonlocal already, is_answered_before
            is_answered_before = False
            if current is None:
                raise UnknownModel(f"{model} has no release yet: run `retrain` for it first")
            already = None if again else self._just_taken_back(current)
            return current if already else roll_back(current, at=at)

        release = self.change(model, decide, action="roll_back", actor=actor, reason=reason, request=request)
        if is_answered_before and (now := self.current(model)) is not None and now != release:
            already = (
                f"this request was answered before, with revision {release.revision} (champion {release.champion}); "
                f"nothing was changed now. Since then: {told(now)}."
            )
        return TakenBack(release=release, already=already)

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
                recorded_at=self._wall_clock(),
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

    def _just_taken_back(self, current: Release) -> str | None:
        """What a roll-back did some minutes ago, and how to go one further; None where the newest change is another."""
        journal = self.journal(current.model)
        if not journal or journal[-1].after != current:
            return None  # changed since it was read: the swap fails, and says by whom
        last = next(entry for entry in reversed(journal) if entry.before is None or noted(entry.before) != entry.after)
        ago = timedelta.max if last.recorded_at is None else self._wall_clock() - last.recorded_at
        if last.action != "roll_back" or last.before is None or ago >= AGAIN_AFTER:
            return None
        return (
            f"version {last.before.challenger or last.before.champion} was taken back {max(ago.total_seconds(), 0):.0f} s ago, at "
            f"{last.recorded_at:%Y-%m-%d %H:%M:%S} UTC by {last.actor} ({last.reason}). Version {current.champion} is the "
            f"champion; nothing was changed. To go one further back: `make rollback MODEL={current.model} AGAIN=1`, "
            "over HTTP the header `X-Again: true`, in Prefect `roll_out` with `again`."
        )

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
