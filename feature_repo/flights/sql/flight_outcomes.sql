-- The label, and when it was known: late is 15 minutes or more at the destination, or cancelled, or diverted.
-- A flight is late for certain when it is 15 minutes overdue and nothing was heard of it: that is revision 0, and when
-- it lands after all, its delay is revision 1. On time and cancelled are certain when they are reported.
WITH heard AS (
    SELECT *, scheduled_arrival + getvariable('late') + getvariable('reporting_lag') AS overdue_at
    FROM movements WHERE kind <> 'departure'
),
due AS (
    SELECT *, scheduled_arrival + getvariable('late') + getvariable('reporting_lag') AS overdue_at
    FROM schedules
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
WHERE (heard.known_at IS NULL OR heard.known_at = due.overdue_at) AND due.overdue_at <= getvariable('window_end')
UNION ALL
SELECT
    example_id, carrier, origin, dest,
    1 AS late,
    delay_minutes::DOUBLE AS arrival_delay_minutes,
    true AS completed,
    1 AS revision,
    known_at AS event_timestamp
FROM heard WHERE known_at > overdue_at AND kind = 'arrival'
