"""Who may retrain now: law 4 where events arrive more than once.

Repository over `retrain_requests`; the caller owns the transaction. Asks for one model pass a
turnstile one after the other, and two partial unique indexes say the same again: at most one running retrain a model,
at most one retrain an episode. `evergreen/monitoring/policy.py` decides whether a retrain is due, this who does it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from evergreen.adapters.database import lock
from evergreen.adapters.tables import RetrainRequestRow
from evergreen.errors import InvalidTransition, UnknownModel
from evergreen.types import (
    Cause,
    Remedy,
    RetrainRequest,
)

ALARMS = (Cause.DRIFT, Cause.DECAY, Cause.AGE, Cause.VOLUME)
"""Causes the cooldown holds back; persons and schedules know what they do."""
AUTOMATIC = (*ALARMS, Cause.SCHEDULE)
"""Causes that wait while something is open, and for the budget; a person may go ahead."""
BUDGET = timedelta(days=30)
FULL = tuple(remedy.value for remedy in Remedy if remedy.trains_anew)


def _wall_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Limits:
    """What an ask that nobody stands behind is measured by."""

    cooldown_days: float
    max_in_30_days: int | None = None
    max_device_hours_in_30_days: float | None = None


@dataclass(frozen=True)
class _Verdict:
    admitted: bool
    reason: str
    abandoned: RetrainRequestRow | None = None
    """An admission whose lease has run out and that this one ends."""


class Admissions:
    """One retrain an episode, one at a time a model; every ask is on record with its reason.

    Leases are in wall time, read from `now`; episodes and cooldowns are in logical time, read from the asks.
    """

    def __init__(self, session: Session, now: Callable[[], datetime] = _wall_clock) -> None:
        self._session = session
        self._now = now

    def ask(
        self,
        *,
        request_id: str,
        model: str,
        cause: Cause,
        episode: str,
        as_of: datetime,
        cooldown_days: float,
        lease_seconds: float,
        owner: str | None = None,
        blocked: str | None = None,
        max_in_30_days: int | None = None,
        max_device_hours_in_30_days: float | None = None,
        remedy: Remedy = Remedy.RETRAIN,
    ) -> RetrainRequest:
        """Ask to retrain `model` for `episode`; `admitted` means: do it, and `renew` before the lease runs out.

        The same request asked again by the same owner (default: the request's own id, such as a flow run's) goes on
        where it was; one that is done stays done. The same request by another owner counts as another ask. An
        admission whose lease has run out is taken over. A suppressed or failed request asked again is judged again.
        `blocked` says why nothing automatic may start now, `max_in_30_days` how many retrains may have been done before,
        `max_device_hours_in_30_days` what all remedies may have used. Cooldown and number are for what trains anew.
        The wait for another ask of the model is at most that ask's transaction: keep it short.
        """
        owner = owner or request_id
        lock(self._session, f"retrain:{model}")
        mine = self._find(request_id, owner)
        finished = self._one(RetrainRequestRow.request_id == request_id, RetrainRequestRow.status == "done")
        if finished is not None:
            return _request(finished)
        lease_until = self._now() + timedelta(seconds=lease_seconds)
        if mine is not None and mine.status == "admitted":
            mine.lease_until = lease_until
            mine.reason = f"resumed by {owner}; asked as of {mine.as_of.isoformat()} because of {mine.cause}"
            self._session.flush()
            return _request(mine)
        limits = Limits(cooldown_days, max_in_30_days, max_device_hours_in_30_days)
        verdict = self._judge(model, cause, episode, as_of, remedy, limits, blocked)
        if verdict.admitted and verdict.abandoned is not None:
            verdict.abandoned.status = "failed"
            verdict.abandoned.reason = f"its lease ran out; ended by request {request_id} of {owner}"
            self._session.flush()  # before the new admission: the indexes allow one
        row = mine or RetrainRequestRow(request_id=request_id, owner=owner, version=None)
        earlier = f" (before: {mine.status}: {mine.reason})" if mine is not None and verdict.admitted else ""
        row.model, row.cause, row.episode, row.as_of = model, cause.value, episode, as_of
        row.asked_at, row.lease_until, row.remedy = self._now(), lease_until, remedy.value
        row.status = "admitted" if verdict.admitted else "suppressed"
        row.reason = verdict.reason + earlier
        self._session.add(row)
        self._session.flush()
        return _request(row)

    def renew(
        self, request_id: str, *, lease_seconds: float, owner: str | None = None, device_seconds: float | None = None
    ) -> bool:
        """Hold the admission for `lease_seconds` more. False: it was lost to another; stop working on it.

        `device_seconds` is what it has used so far, which counts from then on: it may be killed before it finishes.
        """
        row = self._find(request_id, owner or request_id)
        if row is None or row.status != "admitted":
            return False
        lock(self._session, f"retrain:{row.model}")
        self._session.refresh(row)
        if row.status != "admitted":
            return False
        row.lease_until = self._now() + timedelta(seconds=lease_seconds)
        if device_seconds is not None:
            row.device_seconds = device_seconds
        self._session.flush()
        return True

    def finish(
        self,
        request_id: str,
        *,
        status: Literal["done", "failed"],
        version: int | None = None,
        reason: str = "",
        owner: str | None = None,
        device_seconds: float | None = None,
    ) -> RetrainRequest:
        """Close the admission: `done` closes its episode, `failed` opens it to the next ask. Twice is once.

        Raises `UnknownModel` when nobody asked under that id, `InvalidTransition` when another has taken it over.
        """
        row = self._find(request_id, owner or request_id)
        if row is None:
            raise UnknownModel(f"no retrain was asked for as request {request_id!r} of {owner or request_id!r}")
        lock(self._session, f"retrain:{row.model}")
        self._session.refresh(row)
        if row.status == status:
            return _request(row)
        if row.status != "admitted":
            raise InvalidTransition(
                f"request {request_id!r} is {row.status}, not admitted, so it cannot become {status}: {row.reason}. "
                "Ask again to go on."
            )
        row.status, row.version, row.reason = status, version, reason or row.reason
        if device_seconds is not None:
            row.device_seconds = device_seconds
        self._session.flush()
        return _request(row)

    def recent(self, model: str, limit: int = 100) -> list[RetrainRequest]:
        """The newest asks first, suppressed ones among them."""
        rows = (
            select(RetrainRequestRow)
            .where(RetrainRequestRow.model == model)
            .order_by(RetrainRequestRow.asked_at.desc(), RetrainRequestRow.id.desc())
            .limit(limit)
        )
        return [_request(row) for row in self._session.scalars(rows)]

    def _judge(
        self,
        model: str,
        cause: Cause,
        episode: str,
        as_of: datetime,
        remedy: Remedy,
        limits: Limits,
        blocked: str | None,
    ) -> _Verdict:
        of_model = RetrainRequestRow.model == model
        done = self._one(of_model, RetrainRequestRow.episode == episode, RetrainRequestRow.status == "done")
        if done is not None:
            return _Verdict(False, f"episode {episode} had its retrain: request {done.request_id}, {done.reason}")
        holder = self._one(of_model, RetrainRequestRow.status == "admitted")
        if holder is not None and holder.lease_until > self._now():
            subject = f"episode {episode}" if holder.episode == episode else f"another episode, {holder.episode},"
            return _Verdict(
                False,
                f"{subject} is being retrained by request {holder.request_id} of {holder.owner}, "
                f"which holds its lease until {holder.lease_until.isoformat(timespec='seconds')}",
            )
        if holder is not None and holder.episode == episode:
            return _Verdict(True, f"took episode {episode} over from {holder.owner}, whose lease ran out", holder)
        if cause in AUTOMATIC and blocked is not None:
            return _Verdict(False, blocked)
        for refusal in self._refusals(model, cause, as_of, remedy, limits):
            return _Verdict(False, refusal)
        return _Verdict(True, f"first ask for episode {episode} to be admitted, because of {cause.value}", holder)

    def _refusals(self, model: str, cause: Cause, as_of: datetime, remedy: Remedy, limits: Limits) -> Iterator[str]:
        """Why an ask that nobody stands behind must wait."""
        found: list[str | None] = []
        if cause in ALARMS and remedy.trains_anew:
            found.append(self._cooldown(model, as_of, limits.cooldown_days))
        if cause in AUTOMATIC and remedy.trains_anew:
            found.append(self._budget(model, as_of, limits.max_in_30_days))
        if cause in AUTOMATIC:
            found.append(self._compute(model, as_of, limits.max_device_hours_in_30_days))
        yield from filter(None, found)

    def _cooldown(self, model: str, as_of: datetime, cooldown_days: float) -> str | None:
        """Why an alarm must wait, or None. A failed retrain cools nothing down, nor does one whose lease ran out."""
        last = self._session.scalar(
            select(RetrainRequestRow.as_of)
            .where(
                RetrainRequestRow.model == model,
                RetrainRequestRow.cause.in_([cause.value for cause in ALARMS]),
                RetrainRequestRow.remedy.in_(FULL),
                RetrainRequestRow.status == "done",
            )
            .order_by(RetrainRequestRow.as_of.desc())
            .limit(1)
        )
        if last is None or as_of - last >= timedelta(days=cooldown_days):
            return None
        days = (as_of - last) / timedelta(days=1)
        return (
            f"the last retrain an alarm asked for was as of {last:%Y-%m-%d %H:%M}, {days:.1f} days before this one, "
            f"and [retrain].cooldown_days asks for {cooldown_days:g}"
        )

    def _budget(self, model: str, as_of: datetime, most: int | None) -> str | None:
        """Why the month's budget is spent, or None."""
        if most is None:
            return None
        done = self._session.scalar(
            select(func.count())
            .select_from(RetrainRequestRow)
            .where(
                RetrainRequestRow.model == model,
                RetrainRequestRow.remedy.in_(FULL),
                RetrainRequestRow.status == "done",
                RetrainRequestRow.as_of > as_of - BUDGET,
                RetrainRequestRow.as_of <= as_of,
            )
        )
        if not done or done < most:
            return None
        return f"{done} retrains were done in the 30 days before, and [retrain].max_in_30_days allows {most}"

    def _compute(self, model: str, as_of: datetime, most: float | None) -> str | None:
        """Why the month's device time is spent, or None; failed and killed asks used theirs too."""
        if most is None:
            return None
        used = self._session.scalar(
            select(func.sum(RetrainRequestRow.device_seconds)).where(
                RetrainRequestRow.model == model,
                RetrainRequestRow.as_of > as_of - BUDGET,
                RetrainRequestRow.as_of <= as_of,
            )
        )
        hours = (used or 0.0) / 3600
        if hours < most:
            return None
        return (
            f"remedies used {hours:.2f} device hours in the 30 days before, and [retrain].max_device_hours_in_30_days "
            f"allows {most:g}"
        )

    def _find(self, request_id: str, owner: str) -> RetrainRequestRow | None:
        return self._one(RetrainRequestRow.request_id == request_id, RetrainRequestRow.owner == owner)

    def _one(self, *conditions: object) -> RetrainRequestRow | None:
        query = select(RetrainRequestRow).where(*conditions).execution_options(populate_existing=True)  # type: ignore[arg-type]
        return self._session.scalars(query.limit(1)).first()


def _request(row: RetrainRequestRow) -> RetrainRequest:
    return RetrainRequest.model_validate({name: getattr(row, name) for name in RetrainRequest.model_fields})
