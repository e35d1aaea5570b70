-- How often flights on a route came out late over the last day, week and four weeks, every three hours.
-- An outcome goes to the first third hour at which it is known; flights not heard of yet are in no count.
WITH outcomes AS (
    SELECT
        origin, dest,
        time_bucket(INTERVAL 3 HOURS, event_timestamp - INTERVAL 1 MICROSECOND) + INTERVAL 3 HOURS AS moment,
        count(*) AS flights,
        sum(late) AS late
    FROM flight_outcomes WHERE revision = 0 GROUP BY ALL
),
bounds AS (
    SELECT
        time_bucket(INTERVAL 3 HOURS, greatest(getvariable('window_start') - INTERVAL 28 DAYS, min(moment))) AS first,
        least(getvariable('window_end'), max(moment) + INTERVAL 28 DAYS) AS last
    FROM outcomes
),
grid AS (
    SELECT origin, dest, moment
    FROM (SELECT DISTINCT origin, dest FROM outcomes),
         (SELECT unnest(generate_series(first, last, INTERVAL 3 HOURS)) AS moment FROM bounds)
),
sums AS (
    SELECT
        origin, dest,
        moment,
        sum(flights) OVER day AS flights_1d, sum(late) OVER day AS late_1d,
        sum(flights) OVER week AS flights_7d, sum(late) OVER week AS late_7d,
        sum(flights) OVER month AS flights_28d, sum(late) OVER month AS late_28d
    FROM grid LEFT JOIN outcomes USING (origin, dest, moment)
    WINDOW
        day AS (PARTITION BY origin, dest ORDER BY moment ROWS 7 PRECEDING),
        week AS (PARTITION BY origin, dest ORDER BY moment ROWS 55 PRECEDING),
        month AS (PARTITION BY origin, dest ORDER BY moment ROWS 223 PRECEDING)
)
SELECT
    origin, dest,
    moment AS event_timestamp,
    coalesce(flights_1d, 0)::DOUBLE AS route_flights_1d,
    coalesce(flights_7d, 0)::DOUBLE AS route_flights_7d,
    coalesce(flights_28d, 0)::DOUBLE AS route_flights_28d,
    late_1d / flights_1d AS route_late_rate_1d,
    late_7d / flights_7d AS route_late_rate_7d,
    late_28d / flights_28d AS route_late_rate_28d
FROM sums WHERE flights_28d > 0
