"""Who may retrain now? One an episode; what was suppressed is on record."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Literal

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run
from sqlalchemy.exc import SQLAlchemyError

from evergreen.errors import InvalidTransition
from evergreen.spec import ModelSpec
from evergreen.types import Cause, Remedy, RetrainRequest
from evergreen.wiring import Records, wiring

SHOWN = 20
"""Asks on a run's page."""


@task(retries=3, retry_delay_seconds=1)
def ask(
    spec: ModelSpec, cause: Cause, episode: str | None, as_of: datetime, remedy: Remedy = Remedy.RETRAIN
) -> RetrainRequest:
    """Ask to do `remedy`; the same flow run asking again, or the same episode after its holder died, goes on where it was."""
    request_id = str(flow_run.id)
    with wiring().records() as records:
        request = records.admissions.ask(
            request_id=request_id,
            model=spec.name,
            cause=cause,
            episode=episode or f"{cause}:{request_id}",
            as_of=as_of,
            cooldown_days=spec.retrain.cooldown_days,
            lease_seconds=wiring().settings.lease_seconds,
            blocked=why_blocked(records, spec, as_of),
            max_in_30_days=spec.retrain.max_in_30_days,
            max_device_hours_in_30_days=spec.retrain.max_device_hours_in_30_days,
            remedy=remedy,
        )
        _show(records.admissions.recent(spec.name, SHOWN))
    get_run_logger().info("%s: %s", request.status, request.reason)
    return request


def _show(asks: Sequence[RetrainRequest]) -> None:
    """The newest asks on the run's page, suppressed ones with their reasons among them."""
    names = {"as_of", "cause", "remedy", "episode", "status", "reason", "version", "device_seconds"}
    table = [one.model_dump(mode="json", include=names) for one in asks]
    create_table_artifact(
        key="asks", table=table, description="What was asked for, newest first, and what became of it."
    )


def why_blocked(records: Records, spec: ModelSpec, as_of: datetime) -> str | None:
    """Why nothing automatic may retrain now: the data is broken, or a release is still open."""
    faults = records.checks.open_faults(spec.name, as_of)
    if faults:
        return f"the data is broken, and a model must not learn it: {'; '.join(faults)}"
    release = records.releases.current(spec.name)
    if release is not None and release.challenger is not None:
        return (
            f"version {release.challenger} is on its way out at {release.challenger_share:.0%}: one release at a time"
        )
    return None


@contextmanager
def held(request: RetrainRequest) -> Iterator[str]:
    """Keep the admission's lease alive; a process that dies stops renewing, and another may take over.

    Yields the request's account: the folder where all that it trains notes what it uses, which every renewal and the end
    write into the record.
    """
    done = threading.Event()
    lease = wiring().settings.lease_seconds
    logger = get_run_logger()

    def renew() -> None:
        while not done.wait(lease / 3):
            try:
                with wiring().records() as records:
                    if not records.admissions.renew(
                        request.request_id, lease_seconds=lease, device_seconds=_used(request)
                    ):
                        return  # taken over: `finish` will say so, and the work is the same work
            except (SQLAlchemyError, OSError) as error:  # what is away for a moment must not cost the lease
                logger.warning("the admission's lease was not renewed, trying again: %s", error)

    thread = threading.Thread(target=renew, name="admission-lease", daemon=True)
    thread.start()
    try:
        yield str(_account(request))
    except BaseException as error:
        with suppress(InvalidTransition):
            _finish(request, "failed", None, f"{type(error).__name__}: {error}")
        raise
    finally:
        done.set()
        thread.join()


@task(retries=3, retry_delay_seconds=1)
def finish(request: RetrainRequest, version: int | None, reason: str) -> RetrainRequest:
    """Close the request with what came of it and what it used."""
    return _finish(request, "done", version, reason)


def _finish(
    request: RetrainRequest, status: Literal["done", "failed"], version: int | None, reason: str
) -> RetrainRequest:
    with wiring().records() as records:
        return records.admissions.finish(
            request.request_id, status=status, version=version, reason=reason, device_seconds=_used(request)
        )


def _account(request: RetrainRequest) -> Path:
    return wiring().settings.artifacts / "asks" / request.request_id


def _used(request: RetrainRequest) -> float | None:
    """Device seconds in the request's account; None where nothing was trained."""
    from evergreen.training.run.spending import spent

    cost = spent(_account(request), wiring().settings.rates)
    return None if cost is None else cost.device_seconds
