-- The newest observation at the origin, by when it was published. News older than what is already known changes nothing.
SELECT
    origin,
    known_at AS event_timestamp,
    observed_at,
    temp AS temperature,
    temp - dewp AS dew_point_spread,
    humid AS humidity,
    wind_speed,
    coalesce(wind_gust, wind_speed) AS wind_gust,
    wind_speed * cos(radians(wind_dir)) AS wind_north,
    wind_speed * sin(radians(wind_dir)) AS wind_east,
    precip AS precipitation,
    sum((precip * 100)::BIGINT) OVER hours / 100 AS precipitation_6h,
    pressure,
    visib AS visibility
FROM weather
WINDOW hours AS (PARTITION BY origin ORDER BY observed_at RANGE BETWEEN INTERVAL 5 HOURS PRECEDING AND CURRENT ROW)
QUALIFY observed_at = max(observed_at) OVER (PARTITION BY origin ORDER BY known_at, observed_at)
