"""The way back without Prefect: one HTTP call, and what serving puts right when it starts.

The call changes the release, which every serving process follows within its poll interval, and answers; MLflow's aliases
follow when MLflow answers. Who may: whoever sends an API key for `admin` (`keys.py`), on this machine too, where nothing
else takes one.
"""

import logging
from threading import Thread
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request

from evergreen.adapters.reconciler import reconcile, show
from evergreen.types import Release
from evergreen.wiring import Wiring
from serving.keys import ApiKey, require
from serving.schemas import Refusal

logger = logging.getLogger(__name__)
router = APIRouter()


def wiring_of(request: Request) -> Wiring:
    """The app's clients."""
    wiring = request.app.state.wiring
    assert isinstance(wiring, Wiring)
    return wiring


Clients = Annotated[Wiring, Depends(wiring_of)]
Admin = Annotated[ApiKey, Depends(require("admin", always=True))]


class RolledBack(Release):
    """The release as the roll-back left it: a key that is sent again gets what it got the first time."""

    already: str | None = None
    """Why nothing was changed, and how to go one further back; for a key that is sent again, what the release has become
    since its roll-back. Null otherwise."""


@router.post(
    "/models/{model_name}/rollback",
    tags=["operations"],
    responses={
        401: {"model": Refusal, "description": "Without a known key"},
        403: {"model": Refusal, "description": "The key is not for `admin`"},
        404: {"model": Refusal, "description": "The model has no release"},
        409: {"model": Refusal, "description": "There is nothing to go back to, or somebody else was first"},
    },
)
def rollback(
    model_name: Annotated[str, Path(pattern="^[ -~]+$", max_length=64)],
    wiring: Clients,
    admin: Admin,
    reason: Annotated[str, Header(alias="X-Reason", max_length=500)] = "asked for over HTTP",
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    again: Annotated[bool, Header(alias="X-Again")] = False,
) -> RolledBack:
    """Drop the challenger, or put the previous champion back.

    The same `Idempotency-Key` again changes nothing. Nor does a call without one, or with an empty one, within minutes of a
    roll-back, since its caller may not have heard of that one: `already` then tells of it, and `X-Again: true` goes one
    further back.
    """
    request = f"http/{idempotency_key}" if idempotency_key else None
    with wiring.records() as records:
        done = records.releases.take_back(
            model_name,
            at=wiring.settings.clock(),
            actor=f"http/{admin.name}",
            reason=reason,
            request=request,
            again=again or request is not None,
        )
    # Who serves is decided. Neither whoever asked nor FastAPI's pool of threads waits for a registry that may be away.
    Thread(target=mirror, args=(wiring, model_name), name=f"mirrors-{model_name}", daemon=True).start()
    return RolledBack(**dict(done.release), already=done.already)


def mirror(wiring: Wiring, model: str) -> None:
    """Make MLflow's aliases say who serves; where that fails the next reconciler does it."""
    try:
        show(wiring.engine, wiring.registry, model)
    except Exception as error:  # MLflow raises whatever its transport does
        logger.warning("%s: the release is changed, its aliases are not yet: %s", model, error)


def put_right(wiring: Wiring) -> None:
    """Reconcile releases before serving; a registry that is away is no reason not to serve."""
    try:
        for finding in reconcile(wiring.engine, wiring.registry):
            logger.warning("%s: %s", finding.model, finding.reason)
    except Exception as error:  # MLflow raises whatever its transport does
        logger.warning("the releases were not reconciled: %s: %s", type(error).__name__, error)
