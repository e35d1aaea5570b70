"""When is it? Every flow takes `as_of`; without one it is the logical now."""

from datetime import UTC, datetime

from evergreen.wiring import wiring


def moment(as_of: datetime | None) -> datetime:
    """`as_of` in UTC (a naive one is taken as UTC), or the logical now."""
    if as_of is None:
        return wiring().settings.clock()
    return as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of.astimezone(UTC)
