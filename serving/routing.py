"""Which version answers a key: a sticky split between champion and challenger.

Pure. The same key meets the same version as long as the release does not change, on every replica and after a restart;
raising the challenger's share only moves keys from the champion to it. In a roll out a row's key is its own id, in an A/B test
the entity the test is by. Called by `scoring.py`.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

from numpy.typing import NDArray

from evergreen.training.data.preprocessing import category_key
from evergreen.types import Release

Role = Literal["champion", "challenger"]


def keys(
    release: Release, example_ids: Sequence[str], columns: Mapping[str, Sequence[Any] | NDArray[Any]]
) -> Sequence[str]:
    """What each row is routed by: its entity where an A/B test is by one and the row has it, else its id."""
    entity = release.test.entity if release.test is not None else None
    if entity is None or entity not in columns:
        return example_ids
    named = (category_key(value) for value in columns[entity])
    return [name if name is not None else own for name, own in zip(named, example_ids, strict=True)]


def point_of(model: str, salt: int | str, key: str) -> float:
    """A key's place in [0, 1), uniform over keys.

    The salt, a challenger's number or that of a test, makes each canary and each test meet other keys than the one before.
    """
    digest = blake2b(f"{model}\0{salt}\0{key}".encode(), digest_size=8).digest()
    # 53 bits are what a float holds; dividing all 64 could round up to 1.0.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def roles(release: Release, keys: Sequence[str]) -> list[Role]:
    """Who answers each key: the challenger where its point is below the challenger's share."""
    if release.challenger is None:
        return ["champion"] * len(keys)
    salt, share = release.test.salt if release.test is not None else release.challenger, release.challenger_share
    return ["challenger" if point_of(release.model, salt, key) < share else "champion" for key in keys]
