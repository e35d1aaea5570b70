"""Hand Prefect's queued log lines and events over before its server is stopped.

A process that called flows sends both from threads in the background; with the server gone they retry for a minute at
exit, and what was queued is lost.
"""

from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker


def drain(timeout_seconds: float = 10.0) -> None:
    """Send what is queued, and stop sending."""
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=timeout_seconds)
