"""What a domain's `ingest` and `build` say of themselves: the flows show it, and decide nothing by it."""

from evergreen.types.fact import Fact, Utc


class Arrivals(Fact):
    """What came in of one raw table."""

    received: int
    good: int
    quarantined: int


class IngestReport(Fact):
    """What became known between two moments; `received == good + quarantined`."""

    after: Utc | None = None
    until: Utc
    tables: dict[str, Arrivals]


class BuildReport(Fact):
    """Rows (re)built of each feature table, of those that became known from `start` on."""

    start: Utc | None = None
    until: Utc
    rows: dict[str, int]
