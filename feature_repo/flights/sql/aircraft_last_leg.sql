-- The last leg an aircraft was heard of: it changes when a departure is known and again when the arrival is.
-- leg_ready_at (seconds since 1970) is when it got there, or will if it makes up nothing on the way.
SELECT
    tailnum,
    known_at AS event_timestamp,
    happened_at AS observed_at,
    delay_minutes::DOUBLE AS leg_delay,
    (kind = 'arrival')::DOUBLE AS leg_arrived,
    epoch(if(kind = 'arrival', happened_at, scheduled_arrival + to_minutes(delay_minutes))) AS leg_ready_at,
    date_diff('minute', scheduled_departure, scheduled_arrival)::DOUBLE AS leg_block_minutes
FROM movements
WHERE kind IN ('departure', 'arrival') AND tailnum IS NOT NULL
QUALIFY row_number() OVER (PARTITION BY tailnum, known_at ORDER BY happened_at DESC, kind, example_id) = 1
