-- The label, and when it was known: late is 15 minutes or more at the destination, or cancelled, or diverted.
-- A flight is late for certain when it is 15 minutes overdue and nothing was heard of it: that is revision 0, and when
-- it lands after all, its delay is revision 1. On time and cancelled are certain when they are reported.
-- A report that was refused is not silence: a flight of which one had come when it was overdue gets no revision 0, and
-- has no label until a report is let in. A refused row that names no flight speaks of all that were to be heard of on
-- the day it is filed under. Refused departures say nothing of the arrival and do not count.
WITH heard AS (
    SELECT *, scheduled_arrival + getvariable('late') + getvariable('reporting_lag') AS overdue_at
    FROM movements WHERE kind <> 'departure'
),
due AS (
    SELECT *, scheduled_arrival + getvariable('late') + getvariable('reporting_lag') AS overdue_at
    FROM schedules
),
refused AS (
    SELECT * FROM refused_movements WHERE kind IS DISTINCT FROM 'departure'
),
withheld AS (
    SELECT example_id FROM due JOIN refused USING (example_id)
    WHERE refused.known_at IS NULL OR refused.known_at <= due.overdue_at
    UNION
    SELECT due.example_id FROM due JOIN (SELECT DISTINCT day FROM refused WHERE example_id IS NULL) AS nameless
        ON nameless.day BETWEEN due.scheduled_departure::DATE AND due.overdue_at::DATE
)
SELECT
    example_id, carrier, origin, dest,
    (kind = 'cancellation')::INTEGER AS late,
    delay_minutes::DOUBLE AS arrival_delay_minutes,
    kind = 'arrival' AS completed,
    0 AS revision,
    known_at AS event_timestamp
FROM heard WHERE known_at < overdue_at
UNION ALL
SELECT
    due.example_id, due.carrier, due.origin, due.dest,
    1 AS late,
    heard.delay_minutes::DOUBLE AS arrival_delay_minutes,
    heard.kind = 'arrival' AS completed,
    0 AS revision,
    due.overdue_at AS event_timestamp
FROM due LEFT JOIN heard ON heard.example_id = due.example_id AND heard.known_at <= due.overdue_at
WHERE due.overdue_at <= getvariable('window_end') AND (
    heard.known_at = due.overdue_at
    OR (heard.known_at IS NULL AND due.example_id NOT IN (SELECT example_id FROM withheld))
)
UNION ALL
SELECT
    example_id, carrier, origin, dest,
    (to_minutes(delay_minutes) >= getvariable('late'))::INTEGER AS late,  -- 0 only where the first report was refused
    delay_minutes::DOUBLE AS arrival_delay_minutes,
    true AS completed,
    1 AS revision,
    known_at AS event_timestamp
FROM heard WHERE known_at > overdue_at AND kind = 'arrival'
