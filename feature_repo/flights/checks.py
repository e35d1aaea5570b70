"""What a raw row must be like to be let in.

A batch is split in two: rows that keep every rule, and rows that break one, with the rules they broke. Nothing is
dropped and nothing is repaired here. A batch that lacks a column or has a wrong type is refused whole; the
other tables' batches go on. To add a rule,
add a `Check` to the table's schema; its `error` is what the quarantine report says. Called by `pipeline.py`.
"""

from typing import NamedTuple

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

ORIGINS = ("EWR", "JFK", "LGA")
_UTC = "datetime64[us, UTC]"


class Checked(NamedTuple):
    """A batch, split."""

    good: pd.DataFrame
    bad: pd.DataFrame
    """The refused rows as they came, with a column `reasons`."""


def check(table: str, rows: pd.DataFrame) -> Checked:
    """Split `rows` of a raw table by its rules; `len(good) + len(bad) == len(rows)`. Of duplicates the first is good."""
    rows = rows.reset_index(drop=True)
    try:
        SCHEMAS[table].validate(rows, lazy=True)
    except SchemaErrors as errors:
        reasons = _reasons(errors.failure_cases, rows)
        bad = rows.index.isin(reasons.index)
        return Checked(rows[~bad], rows[bad].assign(reasons=reasons))
    return Checked(rows, rows[:0].assign(reasons=""))


def _reasons(failures: pd.DataFrame, rows: pd.DataFrame) -> "pd.Series[str]":
    """By row, the rules it broke; a failure of no row in particular is one of all rows."""
    missing = failures["check"] == "column_in_dataframe"  # pandera names the column as the failure
    column = failures["column"].where(~missing, failures["failure_case"]).fillna("").astype(str)
    named = column + ": " + failures["check"].astype(str).where(~missing, "not in the batch")
    whole = failures["index"].isna()
    by_row = (
        named[~whole].groupby(failures["index"][~whole].astype(int)).agg(lambda rules: "; ".join(sorted(set(rules))))
    )
    if whole.any():
        refused = "; ".join(sorted(set(named[whole])))
        return pd.Series(refused, index=rows.index)
    return by_row


def _within(low: float, high: float, unit: str) -> pa.Check:
    return pa.Check.in_range(low, high, error=f"between {low:g} and {high:g} {unit}")


def _measured(low: float, high: float, unit: str) -> pa.Column:
    return pa.Column(float, _within(low, high, unit), nullable=True)


def _time(*, nullable: bool = False) -> pa.Column:
    return pa.Column(_UTC, nullable=nullable)


def _one_day_block(rows: pd.DataFrame) -> "pd.Series[bool]":
    block = rows["scheduled_arrival"] - rows["scheduled_departure"]
    return (block >= pd.Timedelta(minutes=15)) & (block <= pd.Timedelta(hours=14))


def _happened_if_it_should(rows: pd.DataFrame) -> "pd.Series[bool]":
    return rows["kind"].isin(["departure", "arrival"]) == rows["happened_at"].notna()


def _flight(**columns: pa.Column) -> dict[str, pa.Column]:
    return {
        "example_id": pa.Column(str),
        "carrier": pa.Column(str, pa.Check.str_matches(r"^[0-9A-Z]{2}$", error="two letters or digits")),
        "flight": pa.Column(int, _within(1, 9999, "as a flight number")),
        "origin": pa.Column(str, pa.Check.isin(ORIGINS, error="EWR, JFK or LGA")),
        "dest": pa.Column(
            str,
            [
                pa.Check.str_matches(r"^[A-Z]{3}$", error="three letters"),
                pa.Check.notin(ORIGINS, error="not a New York airport: no airline flies that hop"),
            ],
        ),
        "tailnum": pa.Column(
            str, pa.Check.str_matches(r"^[0-9A-Z]{4,6}$", error="4 to 6 letters or digits"), nullable=True
        ),
        "distance": pa.Column(int, _within(50, 6_000, "miles")),
        "scheduled_departure": _time(),
        "scheduled_arrival": _time(),
        "known_at": _time(),
        **columns,
    }


_BLOCK = pa.Check(_one_day_block, error="scheduled to take between 15 minutes and 14 hours")

SCHEMAS: dict[str, pa.DataFrameSchema] = {
    "schedules": pa.DataFrameSchema(
        _flight(), checks=[_BLOCK], unique=["example_id"], report_duplicates="exclude_first"
    ),
    "movements": pa.DataFrameSchema(
        _flight(
            kind=pa.Column(str, pa.Check.isin(["departure", "arrival", "cancellation", "diversion"])),
            happened_at=_time(nullable=True),
            delay_minutes=pa.Column("Int64", _within(-180, 2_880, "minutes"), nullable=True),
        ),
        checks=[_BLOCK, pa.Check(_happened_if_it_should, error="departures and arrivals happened, others did not")],
        unique=["example_id", "kind"],
        report_duplicates="exclude_first",
    ),
    "weather": pa.DataFrameSchema(
        {
            "origin": pa.Column(str, pa.Check.isin(ORIGINS, error="EWR, JFK or LGA")),
            "temp": _measured(-40, 125, "°F"),
            "dewp": _measured(-60, 100, "°F"),
            "humid": _measured(0, 100, "%"),
            "wind_dir": _measured(0, 360, "degrees"),
            "wind_speed": _measured(0, 150, "mph"),
            "wind_gust": _measured(0, 200, "mph"),
            "precip": _measured(0, 5, "inches an hour"),
            "pressure": _measured(900, 1_080, "hPa"),
            "visib": _measured(0, 100, "miles"),
            "observed_at": _time(),
            "known_at": _time(),
        },
        unique=["origin", "observed_at"],
        report_duplicates="exclude_first",
    ),
    "planes": pa.DataFrameSchema(
        {
            "tailnum": pa.Column(str, pa.Check.str_matches(r"^[0-9A-Z]{4,6}$", error="4 to 6 letters or digits")),
            "year": _measured(1940, 2013, "as a year of manufacture"),
            "manufacturer": pa.Column(str),
            "engines": pa.Column(int, _within(1, 8, "engines")),
            "seats": pa.Column(int, _within(1, 900, "seats")),
            "known_at": _time(),
        },
        unique=["tailnum"],
        report_duplicates="exclude_first",
    ),
}
