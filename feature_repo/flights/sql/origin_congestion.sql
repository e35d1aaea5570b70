-- The state of the origin every 15 minutes: who is waiting, who is due, and how late the last hours ran.
-- Each event goes to the first quarter of an hour at which it is known; what holds over hours is a frame of quarters.
WITH bounds AS (
    SELECT
        time_bucket(INTERVAL 15 MINUTES, greatest(getvariable('window_start'), date_trunc('day', min(known_at))))
            - INTERVAL 6 HOURS AS first,
        least(getvariable('window_end'), date_trunc('day', max(known_at)) + INTERVAL 3 DAYS) + INTERVAL 3 HOURS AS last
    FROM schedules HAVING count(*) > 0  -- before the first schedule there is no state
),
grid AS (
    SELECT origin, quarter
    FROM (SELECT unnest(['EWR', 'JFK', 'LGA']) AS origin),
         (SELECT unnest(generate_series(first, last, INTERVAL 15 MINUTES)) AS quarter FROM bounds)
),
resolved AS (
    SELECT example_id, min(known_at) AS known_at FROM movements
    WHERE kind IN ('departure', 'cancellation') GROUP BY example_id
),
waiting AS (  -- overdue from 15 minutes after the schedule until it is resolved, for a day at most
    SELECT
        origin,
        greatest(scheduled_departure + INTERVAL 15 MINUTES, bounds.first) AS since,
        least(resolved.known_at, scheduled_departure + INTERVAL 1 DAY) AS until  -- least() ignores a NULL
    FROM bounds, schedules LEFT JOIN resolved USING (example_id)
),
events AS (
    SELECT
        origin, known_at AS moment,
        (kind = 'departure')::INTEGER AS departed,
        if(kind = 'departure', delay_minutes, 0) AS departure_delay,
        (kind = 'arrival')::INTEGER AS arrived,
        if(kind = 'arrival', delay_minutes, 0) AS arrival_delay,
        (kind = 'cancellation')::INTEGER AS cancelled,
        0 AS due,
        0 AS overdue
    FROM movements
    UNION ALL SELECT origin, scheduled_departure, 0, 0, 0, 0, 0, 1, 0 FROM schedules
    UNION ALL SELECT origin, since, 0, 0, 0, 0, 0, 0, 1 FROM waiting WHERE until > since
    UNION ALL SELECT origin, until, 0, 0, 0, 0, 0, 0, -1 FROM waiting WHERE until > since
),
quarters AS (
    SELECT
        origin,
        time_bucket(INTERVAL 15 MINUTES, moment - INTERVAL 1 MICROSECOND) + INTERVAL 15 MINUTES AS quarter,
        sum(departed) AS departed, sum(departure_delay) AS departure_delay,
        sum(arrived) AS arrived, sum(arrival_delay) AS arrival_delay,
        sum(cancelled) AS cancelled, sum(due) AS due, sum(overdue) AS overdue
    FROM events, bounds WHERE moment >= bounds.first GROUP BY ALL
)
SELECT
    origin,
    quarter AS event_timestamp,
    coalesce(sum(overdue) OVER until_now, 0)::DOUBLE AS overdue_departures,
    coalesce(sum(due) OVER next_1h, 0)::DOUBLE AS departures_due_1h,
    coalesce(sum(due) OVER next_3h, 0)::DOUBLE AS departures_due_3h,
    coalesce(sum(departed) OVER last_1h, 0)::DOUBLE AS departed_1h,
    sum(departure_delay) OVER last_1h / nullif(sum(departed) OVER last_1h, 0) AS departure_delay_1h,
    sum(departure_delay) OVER last_3h / nullif(sum(departed) OVER last_3h, 0) AS departure_delay_3h,
    sum(departure_delay) OVER last_6h / nullif(sum(departed) OVER last_6h, 0) AS departure_delay_6h,
    sum(arrival_delay) OVER last_1h / nullif(sum(arrived) OVER last_1h, 0) AS arrival_delay_1h,
    sum(arrival_delay) OVER last_3h / nullif(sum(arrived) OVER last_3h, 0) AS arrival_delay_3h,
    sum(arrival_delay) OVER last_6h / nullif(sum(arrived) OVER last_6h, 0) AS arrival_delay_6h,
    sum(cancelled) OVER last_3h / nullif(sum(departed + cancelled) OVER last_3h, 0) AS cancelled_share_3h
FROM grid LEFT JOIN quarters USING (origin, quarter)
WINDOW
    until_now AS (PARTITION BY origin ORDER BY quarter ROWS UNBOUNDED PRECEDING),
    next_1h AS (PARTITION BY origin ORDER BY quarter ROWS BETWEEN 1 FOLLOWING AND 4 FOLLOWING),
    next_3h AS (PARTITION BY origin ORDER BY quarter ROWS BETWEEN 1 FOLLOWING AND 12 FOLLOWING),
    last_1h AS (PARTITION BY origin ORDER BY quarter ROWS 3 PRECEDING),
    last_3h AS (PARTITION BY origin ORDER BY quarter ROWS 11 PRECEDING),
    last_6h AS (PARTITION BY origin ORDER BY quarter ROWS 23 PRECEDING)
