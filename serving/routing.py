"""Which version answers a key: a sticky split between champion and challenger.

Pure. The same key meets the same version as long as the release does not change, on every replica and after a restart;
raising the challenger's share only moves keys from the champion to it. Called by `scoring.py`.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

from evergreen.types import Release

Role = Literal["champion", "challenger"]


def point_of(model: str, challenger: int, example_id: str) -> float:
    """A key's place in [0, 1), uniform over keys.

    The challenger's number is part of the hash, so that each canary meets other keys than the one before it.
    """
    digest = blake2b(f"{model}\0{challenger}\0{example_id}".encode(), digest_size=8).digest()
    # 53 bits are what a float holds; dividing all 64 could round up to 1.0.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def roles(release: Release, example_ids: Sequence[str]) -> list[Role]:
    """Who answers each key: the challenger where its point is below the challenger's share."""
    if release.challenger is None:
        return ["champion"] * len(example_ids)
    challenger, share = release.challenger, release.challenger_share
    return ["challenger" if point_of(release.model, challenger, key) < share else "champion" for key in example_ids]
