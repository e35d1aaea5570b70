"""The reconciler: puts back whatever differs from the journal, and says what it found.

A change of a release is one transaction (row and journal) and then a mirror in MLflow; whoever died between the two left a
half-done step, and whoever moved an alias by hand left a lie. Both are put back here, and what a hand did is journalled.
What cannot be repaired, a released version that may not be served, is reported. Safe to run at any time, by several at once.
Called when the stack and serving start, and by the flow `reconcile` on its schedule.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from evergreen.adapters.releases import ReleaseStore
from evergreen.errors import ArtifactError, ReleaseConflict, UnknownModel
from evergreen.types import Finding, ModelVersion, Release

ALIASES = ("champion", "challenger", "previous")
CHANGES_MEANWHILE = 20
"""Releases that change more often than this while they are mirrored are left to whoever changes them."""


class Registry(Protocol):
    """The part of `ModelRegistry` that mirrors a release."""

    def mirror(self, release: Release, *, tag_alone: bool = False) -> None:
        """Show the release; or say what it is and leave the aliases where they are."""

    def mirrored(self, model: str) -> tuple[dict[str, int], Release | None]:
        """What is shown."""

    def version(self, model: str, number: int) -> ModelVersion:
        """Raises `UnknownModel` where there is none, `ArtifactError` where it was never judged."""

    def servable(self, model: str, number: int) -> ModelVersion:
        """Raises `ArtifactError` or `UnknownModel` where the version may not serve."""


def reconcile(engine: Engine, registry: Registry) -> tuple[Finding, ...]:
    """Look at every model that ever had a release; returns what differed, in order of models."""
    with Session(engine) as session:
        models = ReleaseStore(session).journalled()
    return tuple(finding for model in models for finding in _reconcile(engine, registry, model))


def show(engine: Engine, registry: Registry, model: str) -> Release | None:
    """Mirror the release as it is now; None where there is none.

    Of two that mirror at once the slower could leave an older release behind, so each looks again after it has written.
    """
    shown: Release | None = None
    for _ in range(CHANGES_MEANWHILE):
        release = _current(engine, model)
        if release is None or release == shown:
            return release
        registry.mirror(release)
        shown = release
    return shown


def differences(
    release: Release, aliases: dict[str, int], told: Release | None, deleted: set[int]
) -> Iterator[Finding]:
    """How what MLflow shows differs from the release, of whose versions those in `deleted` have no alias any more.

    The mirror writes its tag last. An alias that differs though the tag tells of this revision was moved by hand; under an
    older tag it is a step that was not finished, unless the alias says what neither revision does.
    """
    for alias in ALIASES:
        number, shown = getattr(release, alias), aliases.get(alias)
        if shown == (None if number in deleted else number):
            continue
        before = None if told is None else getattr(told, alias)
        by_hand = told == release or shown != before
        yield Finding(
            model=release.model,
            kind="moved_by_hand" if by_hand else "half_done",
            repaired=True,
            reason=f"alias {alias} was at {_version(shown)}, revision {release.revision} says {_version(number)}: "
            + ("somebody moved it by hand" if by_hand else "the change to that revision was not finished"),
        )
    if told is None or told.revision < release.revision:
        shown_before = "nothing" if told is None else f"revision {told.revision}"
        reason = f"MLflow told of {shown_before}, the release is at revision {release.revision}"
        yield Finding(model=release.model, kind="half_done", repaired=True, reason=reason)
    elif told != release:
        reason = f"the tag evergreen.release told of {told.model_dump_json()}, which is not revision {release.revision}"
        yield Finding(model=release.model, kind="moved_by_hand", repaired=True, reason=reason)


def _reconcile(engine: Engine, registry: Registry, model: str) -> Iterator[Finding]:
    with Session(engine) as session, session.begin():
        differed = ReleaseStore(session).restore(model)
    if differed is not None:
        yield Finding(model=model, kind="release_row", repaired=True, reason=f"{differed}, which is in force again")
    release = _current(engine, model)
    if release is None:
        return
    try:
        aliases, told = registry.mirrored(model)
        found = tuple(differences(release, aliases, told, _deleted(registry, release, aliases)))
    except UnknownModel as error:
        yield Finding(model=model, kind="not_servable", repaired=False, reason=str(error))
        return
    if found and release == _current(engine, model):  # else somebody is at it, and mirrors when done
        by_hand = "; ".join(finding.reason for finding in found if finding.kind == "moved_by_hand")
        if by_hand:
            # Named after what was seen: whoever is killed before the mirror, or looks at the same time, notes it no second time.
            # A tag that is gone is written first, else the next hand that deletes it would be taken for this one.
            if told is None:
                registry.mirror(release, tag_alone=True)
            seen = f"by-hand/{(told or release).revision}/{sorted(aliases.items())}"
            with suppress(ReleaseConflict), Session(engine) as session, session.begin():
                ReleaseStore(session).note(
                    model, action="moved_by_hand", actor="reconciler", reason=by_hand, request=seen
                )
        # The model may have been deleted meanwhile; the next look tells.
        with suppress(UnknownModel):
            show(engine, registry, model)
        yield from found
    yield from _not_servable(registry, release)


def _deleted(registry: Registry, release: Release, aliases: dict[str, int]) -> set[int]:
    """Versions of the release that the registry holds no more, of those whose alias is not there."""
    deleted = set()
    for alias in ALIASES:
        number = getattr(release, alias)
        if number is None or number == aliases.get(alias):
            continue
        try:
            registry.version(release.model, number)
        except UnknownModel:
            deleted.add(number)
        except ArtifactError:  # there, and `_not_servable` says what is wrong with it
            pass
    return deleted


def _not_servable(registry: Registry, release: Release) -> Iterator[Finding]:
    for number in (release.champion, release.challenger, release.previous):
        if number is None:
            continue
        try:
            registry.servable(release.model, number)
        except (ArtifactError, UnknownModel) as error:
            yield Finding(model=release.model, kind="not_servable", repaired=False, reason=str(error))


def _current(engine: Engine, model: str) -> Release | None:
    with Session(engine) as session:
        return ReleaseStore(session).current(model)


def _version(number: int | None) -> str:
    return "no version" if number is None else f"version {number}"
