"""What Feast is told of the flights: entities, views with their times to live, one on-demand view, one service.

Sources are folders of the feature tables that `pipeline.build` makes, relative to the offline store's `root`; a view's
`ttl` is how old a value may be and still be used, offline by the ASOF join and online by `evergreen.adapters.feast`.
To add a feature, add a column to the table's SQL and its name to the view; it is an input of the model when the service
names it. Applied by `Features.apply` or `feast -c feature_repo apply`.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, RequestSource, ValueType
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String, UnixTimestamp

project = Project(name="evergreen", description="Every domain's features")

origin = Entity(name="origin", value_type=ValueType.STRING, description="Airport it leaves from")
dest = Entity(name="dest", value_type=ValueType.STRING, description="Airport it goes to")
carrier = Entity(name="carrier", value_type=ValueType.STRING, description="Airline")
tailnum = Entity(name="tailnum", value_type=ValueType.STRING, description="Aircraft")


def _view(name: str, entities: list[Entity], ttl: timedelta, features: Sequence[str]) -> FeatureView:
    keys = [Field(name=entity.name, dtype=String) for entity in entities]
    return FeatureView(
        name=name,
        entities=entities,
        ttl=ttl,
        schema=[*keys, *(Field(name=feature, dtype=Float64) for feature in features)],
        source=FileSource(name=name, path=f"features/{name}/*.parquet", timestamp_field="event_timestamp"),
    )


def _over(windows: Sequence[str], *names: str) -> list[str]:
    return [f"{name}_{window}" for name in names for window in windows]


origin_weather = _view("origin_weather", [origin], timedelta(hours=6), [
    "temperature", "dew_point_spread", "humidity", "wind_speed", "wind_gust", "wind_north", "wind_east",
    "precipitation", "precipitation_6h", "pressure", "visibility",
])  # fmt: skip
origin_congestion = _view("origin_congestion", [origin], timedelta(hours=1), [
    "overdue_departures", "departures_due_1h", "departures_due_3h", "departed_1h", "cancelled_share_3h",
    *_over(["1h", "3h", "6h"], "departure_delay", "arrival_delay"),
])  # fmt: skip
carrier_origin_rates = _view(
    "carrier_origin_rates",
    [carrier, origin],
    timedelta(days=2),
    _over(["1d", "7d", "28d"], "carrier_flights", "carrier_late_rate"),
)
route_rates = _view(
    "route_rates", [origin, dest], timedelta(days=2), _over(["1d", "7d", "28d"], "route_flights", "route_late_rate")
)
aircraft_last_leg = _view(
    "aircraft_last_leg",
    [tailnum],
    timedelta(hours=36),
    ["leg_delay", "leg_arrived", "leg_ready_at", "leg_block_minutes"],
)
aircraft = _view(
    "aircraft", [tailnum], timedelta(days=20 * 365), ["aircraft_year", "aircraft_seats", "aircraft_engines"]
)

request = RequestSource(
    name="flight_request",
    schema=[
        Field(name="scheduled_departure", dtype=UnixTimestamp),
        Field(name="scheduled_arrival", dtype=UnixTimestamp),
        Field(name="distance", dtype=Float64),
    ],
)


@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[request, aircraft_last_leg, aircraft],
    schema=[
        Field(name=name, dtype=Float64)
        for name in (
            "local_hour", "day_of_week", "holiday_days", "arrival_hour", "block_minutes", "distance_miles",
            "aircraft_age_years", "hours_since_leg", "leg_slack_minutes",
        )
    ],
    mode="python",  # 0.5 ms a request; pandas mode takes 5 ms
)  # fmt: skip
def flight_plan(inputs: dict[str, Any]) -> dict[str, Any]:
    """See `plan.py`; Feast keeps this function's text only, so it finds everything itself."""
    from feature_repo.flights.plan import plan

    return plan(inputs)


flight_delay = FeatureService(
    name="flight_delay",
    features=[
        origin_weather,
        origin_congestion,
        carrier_origin_rates,
        route_rates,
        aircraft_last_leg[["leg_delay", "leg_arrived", "leg_block_minutes"]],
        aircraft[["aircraft_seats", "aircraft_engines"]],
        flight_plan,
    ],
)
