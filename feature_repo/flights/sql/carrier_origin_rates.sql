-- How often a carrier's flights from an origin came out late over the last day, week and four weeks, every hour.
-- An outcome goes to the first full hour at which it is known; flights not heard of yet are in no count.
WITH outcomes AS (
    SELECT
        carrier, origin,
        time_bucket(INTERVAL 1 HOURS, event_timestamp - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOURS AS moment,
        count(*) AS flights,
        sum(late) AS late
    FROM flight_outcomes WHERE revision = 0 GROUP BY ALL
),
bounds AS (
    SELECT
        time_bucket(INTERVAL 1 HOURS, greatest(getvariable('window_start') - INTERVAL 28 DAYS, min(moment))) AS first,
        least(getvariable('window_end'), max(moment) + INTERVAL 28 DAYS) AS last
    FROM outcomes
),
grid AS (
    SELECT carrier, origin, moment
    FROM (SELECT DISTINCT carrier, origin FROM outcomes),
         (SELECT unnest(generate_series(first, last, INTERVAL 1 HOURS)) AS moment FROM bounds)
),
sums AS (
    SELECT
        carrier, origin,
        moment,
        sum(flights) OVER day AS flights_1d, sum(late) OVER day AS late_1d,
        sum(flights) OVER week AS flights_7d, sum(late) OVER week AS late_7d,
        sum(flights) OVER month AS flights_28d, sum(late) OVER month AS late_28d
    FROM grid LEFT JOIN outcomes USING (carrier, origin, moment)
    WINDOW
        day AS (PARTITION BY carrier, origin ORDER BY moment ROWS 23 PRECEDING),
        week AS (PARTITION BY carrier, origin ORDER BY moment ROWS 167 PRECEDING),
        month AS (PARTITION BY carrier, origin ORDER BY moment ROWS 671 PRECEDING)
)
SELECT
    carrier, origin,
    moment AS event_timestamp,
    coalesce(flights_1d, 0)::DOUBLE AS carrier_flights_1d,
    coalesce(flights_7d, 0)::DOUBLE AS carrier_flights_7d,
    coalesce(flights_28d, 0)::DOUBLE AS carrier_flights_28d,
    late_1d / flights_1d AS carrier_late_rate_1d,
    late_7d / flights_7d AS carrier_late_rate_7d,
    late_28d / flights_28d AS carrier_late_rate_28d
FROM sums WHERE flights_28d > 0
