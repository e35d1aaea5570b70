"""The release: which version serves what share, and how it may change.

Pure: a state machine over `Release`; no clock, no database. `adapters/releases.py` makes each change stick by
compare-and-swap, `tasks/release.py` and `tasks/ab_test.py` call both; what to do next is judged in `rollout.py` and
`ab_test.py`. A version is a challenger while it takes part of the traffic and the champion once it takes all of it; the
champion it replaced is kept as the previous one.
"""

from datetime import datetime

from evergreen.errors import InvalidTransition
from evergreen.types import AbTest, Release


def start(release: Release | None, *, model: str, version: int, share: float, at: datetime) -> Release:
    """Open a gated version as challenger at `share` [0..1]; at 0 it stands in the shadow.

    Where there is no champion, or where `share` is 1, it becomes champion at once. An older challenger that is still open is
    superseded: the newer version was judged on newer rows. Raises `InvalidTransition` when the version serves already, or
    when a newer one is open.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidTransition(f"{model}: version {version} cannot start at a share of {share}; give one in [0, 1]")
    if release is None:
        return Release(model=model, revision=1, champion=version, changed_at=at)
    _need_no_test(release, f"start version {version}")
    if version in (release.champion, release.challenger):
        raise InvalidTransition(f"{told(release)}; version {version} serves already, so it cannot be started again")
    if release.challenger is not None and version < release.challenger:
        raise InvalidTransition(
            f"{told(release)}; version {version} is older than the challenger, which was judged on newer rows, so it cannot "
            f"take its place. Wait until version {release.challenger} is promoted or gone, or roll it back first."
        )
    if release.champion is None or share == 1.0:
        return _changed(release, at, champion=version, previous=release.champion)
    return _changed(
        release, at, champion=release.champion, previous=release.previous, challenger=version, challenger_share=share
    )


def start_test(release: Release | None, *, version: int, share: float, test: AbTest, at: datetime) -> Release:
    """Open a gated version as challenger of an A/B test, at a `share` that stays.

    Raises `InvalidTransition` while there is no champion to test against, or another challenger is open.
    """
    if release is None or release.champion is None:
        raise InvalidTransition(
            f"there is no champion to test version {version} against; the first version serves at once"
        )
    _need_no_test(release, f"test version {version}")
    if version == release.champion:
        raise InvalidTransition(f"{told(release)}; a champion cannot be tested against itself")
    if release.challenger is not None:
        raise InvalidTransition(
            f"{told(release)}; version {release.challenger} is being rolled out, and a test needs the traffic to itself. "
            "Wait until that is over, or roll it back first."
        )
    return _changed(
        release,
        at,
        champion=release.champion,
        previous=release.previous,
        challenger=version,
        challenger_share=share,
        test=test,
    )


def end_test(release: Release, *, promoted: bool, at: datetime) -> Release:
    """The A/B test is over: the challenger becomes champion, or it goes."""
    if release.test is None:
        raise InvalidTransition(f"{told(release)}; no A/B test runs that could end")
    if promoted:
        return _changed(release, at, champion=release.challenger, previous=release.champion)
    return _changed(release, at, champion=release.champion, previous=release.previous)


def step(release: Release, *, share: float, at: datetime) -> Release:
    """Give the challenger more of the traffic; all of it is `promote`'s to give."""
    need_challenger(release, "step")
    _need_no_test(release, "step")
    if not release.challenger_share < share < 1.0:
        raise InvalidTransition(
            f"{told(release)}; a step must rise above {release.challenger_share} and stay below 1, not go to {share}. "
            "Use promote to give it everything."
        )
    return _changed(
        release,
        at,
        champion=release.champion,
        previous=release.previous,
        challenger=release.challenger,
        challenger_share=share,
    )


def promote(release: Release, *, at: datetime) -> Release:
    """The challenger becomes champion; the champion it replaces is kept as previous."""
    need_challenger(release, "promote")
    _need_no_test(release, "promote")
    return _changed(release, at, champion=release.challenger, previous=release.champion)


def roll_back(release: Release, *, at: datetime) -> Release:
    """Drop the open challenger, and the A/B test it was in; where there is none, the previous champion becomes champion again.

    What was taken back is not kept as previous: a second roll back must not bring it in again.
    """
    if release.challenger is not None:
        return _changed(release, at, champion=release.champion, previous=release.previous)
    if release.previous is None:
        raise InvalidTransition(f"{told(release)}; there is no challenger and no previous champion to roll back to")
    return _changed(release, at, champion=release.previous, previous=None)


def noted(release: Release) -> Release:
    """The same again as the next revision: for what belongs into the journal and changes nothing."""
    return release.model_copy(update={"revision": release.revision + 1})


def need_challenger(release: Release, action: str) -> None:
    """Raises `InvalidTransition` where there is none."""
    if release.challenger is None:
        raise InvalidTransition(f"{told(release)}; there is no challenger to {action}. Start one first.")


def _need_no_test(release: Release, action: str) -> None:
    if release.test is not None:
        raise InvalidTransition(
            f"{told(release)}; an A/B test runs since {release.test.started_at:%Y-%m-%d %H:%M} and has the traffic to itself, "
            f"so one cannot {action}. Wait for its verdict (`ab_test`), or end it without one by a roll back."
        )


def _changed(
    release: Release,
    at: datetime,
    *,
    champion: int | None,
    previous: int | None,
    challenger: int | None = None,
    challenger_share: float = 0.0,
    test: AbTest | None = None,
) -> Release:
    return Release(
        model=release.model,
        revision=release.revision + 1,
        champion=champion,
        challenger=challenger,
        challenger_share=challenger_share,
        previous=previous,
        changed_at=at,
        test=test,
    )


def told(release: Release) -> str:
    """Where the release is, in words."""
    return (
        f"{release.model} at revision {release.revision} has champion {release.champion}, challenger "
        f"{release.challenger} at {release.challenger_share:.0%}, previous {release.previous}"
    )
