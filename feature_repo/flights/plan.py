"""What depends on the flight that is asked about: the calendar at its departure, and its aircraft's slack.

`plan` is the body of the on-demand view of `definitions.py`: Feast runs it over training rows and `evergreen` over
served ones. Clocks are New York's; holidays are the federal ones of the United States (5 U.S.C. 6103).
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
_MONDAY, _THURSDAY = 0, 3
_FAR = 10  # days from a holiday beyond which it no longer matters which


def plan(inputs: Mapping[str, Sequence[Any]]) -> dict[str, list[float | None]]:
    """Lists in, lists out, one value a flight; what lacks an input (None or NaN) is None.

    Takes `scheduled_departure` and `scheduled_arrival` (datetimes with a zone), `distance` (miles), `leg_ready_at`
    (seconds since 1970), `leg_block_minutes` and `aircraft_year`.
    """
    departures = [moment.timestamp() for moment in inputs["scheduled_departure"]]
    arrivals = [moment.timestamp() for moment in inputs["scheduled_arrival"]]
    clocks = [datetime.fromtimestamp(moment, NEW_YORK) for moment in departures]
    landings = [datetime.fromtimestamp(moment, NEW_YORK) for moment in arrivals]
    waits = [
        None if _missing(ready) else departure - ready
        for departure, ready in zip(departures, inputs["leg_ready_at"], strict=True)
    ]
    return {
        "local_hour": [clock.hour + clock.minute / 60 for clock in clocks],
        "day_of_week": [float(clock.weekday()) for clock in clocks],
        "holiday_days": [days_from_holiday(clock.date()) for clock in clocks],
        "arrival_hour": [clock.hour + clock.minute / 60 for clock in landings],
        "block_minutes": [(end - start) / 60 for start, end in zip(departures, arrivals, strict=True)],
        "distance_miles": [float(miles) for miles in inputs["distance"]],
        "aircraft_age_years": [
            None if _missing(year) else clock.year - year
            for clock, year in zip(clocks, inputs["aircraft_year"], strict=True)
        ],
        "hours_since_leg": [None if wait is None else wait / 3600 for wait in waits],
        # The aircraft went out for `leg` minutes and has to come back before it can leave again.
        "leg_slack_minutes": [
            None if wait is None else wait / 60 - leg
            for wait, leg in zip(waits, inputs["leg_block_minutes"], strict=True)
        ],
    }


def _missing(value: float | None) -> bool:
    return value is None or value != value


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (n - 1))


@lru_cache
def holidays(year: int) -> tuple[date, ...]:
    """Federal holidays from December of the year before to January of the year after, in order."""
    fixed = [date(year, 1, 1), date(year, 7, 4), date(year, 11, 11), date(year, 12, 25)]
    moving = [
        _nth(year, 1, _MONDAY, 3),
        _nth(year, 2, _MONDAY, 3),
        _nth(year, 6, _MONDAY, 1) - timedelta(days=7),
        _nth(year, 9, _MONDAY, 1),
        _nth(year, 10, _MONDAY, 2),
        _nth(year, 11, _THURSDAY, 4),
    ]
    return tuple(sorted([date(year - 1, 12, 25), *fixed, *moving, date(year + 1, 1, 1)]))


@lru_cache(maxsize=4096)
def days_from_holiday(day: date) -> float:
    """Days since the nearest federal holiday, negative before it, between -10 and 10."""
    known = holidays(day.year)
    place = bisect_left(known, day)
    nearest = min(known[max(place - 1, 0) : place + 1], key=lambda holiday: abs((day - holiday).days))
    return float(max(-_FAR, min(_FAR, (day - nearest).days)))
