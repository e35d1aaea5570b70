-- What can be asked about: one row a scheduled flight, known 24 hours before it leaves.
-- The airline's records lack the tail number of cancelled flights only, so a gap there would give the label away. It is
-- filled with what was known when the schedule came out: the aircraft that last flew this flight number from here, else
-- the one that last flew the route for this carrier, both within 14 days. Not with yesterday's: that aircraft has nearly
-- always flown from here within 36 hours (84% against 59% of all flights), which again tells; with those from two days
-- before and earlier it is 51%.
WITH named AS (
    SELECT carrier, flight, origin, dest, tailnum, known_at, known_at + INTERVAL 1 DAY AS usable_after
    FROM schedules WHERE tailnum IS NOT NULL
),
by_route AS (
    SELECT carrier, origin, dest, known_at, usable_after, max(tailnum) AS tailnum FROM named GROUP BY ALL
),
filled AS (
    SELECT
        gap.example_id,
        coalesce(
            CASE WHEN same.known_at >= gap.known_at - INTERVAL 14 DAYS THEN same.tailnum END,
            CASE WHEN near.known_at >= gap.known_at - INTERVAL 14 DAYS THEN near.tailnum END
        ) AS tailnum
    FROM (SELECT * FROM schedules WHERE tailnum IS NULL) AS gap
    ASOF LEFT JOIN named AS same
        ON same.carrier = gap.carrier AND same.flight = gap.flight AND same.origin = gap.origin
        AND same.usable_after < gap.known_at
    ASOF LEFT JOIN by_route AS near
        ON near.carrier = gap.carrier AND near.origin = gap.origin AND near.dest = gap.dest
        AND near.usable_after < gap.known_at
)
SELECT
    example_id,
    carrier,
    flight,
    origin,
    dest,
    coalesce(schedules.tailnum, filled.tailnum, 'UNKNOWN') AS tailnum,
    distance::DOUBLE AS distance,
    scheduled_departure,
    scheduled_arrival,
    known_at AS event_timestamp
FROM schedules LEFT JOIN filled USING (example_id)
