-- The register of aircraft: what does not change from flight to flight.
SELECT
    tailnum,
    known_at AS event_timestamp,
    year AS aircraft_year,
    seats::DOUBLE AS aircraft_seats,
    engines::DOUBLE AS aircraft_engines
FROM planes
