"""What serving counts, for Prometheus: one registry an app, so that two apps in one process do not share figures.

Label values are bounded: a model's name only appears once that model is released, anything else is `unknown`.
Called by every module of serving; read at `/metrics`. To count something new, add an attribute with its help text.
"""

import os
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

FOLDER = "EVERGREEN_METRICS_FOLDER"
"""Names the folder that workers count in; Feast sets prometheus_client's own variable in every process it is imported in."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
AGES = (60.0, 300.0, 900.0, 1_800.0, 3_600.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0, 2_419_200.0)
"""Seconds, from a minute to four weeks: what lies between two materializations, and what a TTL allows."""
CACHES = ("predictions", "features")


class Metrics:
    """The counters of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"evergreen_{name}", says, labels, registry=self.registry)

        def gauge(name: str, says: str, *labels: str, over: Literal["livesum", "livemostrecent"] = "livesum") -> Gauge:
            return Gauge(f"evergreen_{name}", says, labels, registry=self.registry, multiprocess_mode=over)

        def seconds(name: str, says: str, *labels: str) -> Histogram:
            return Histogram(f"evergreen_{name}_seconds", says, labels, buckets=SECONDS, registry=self.registry)

        self.requests = counter("requests", "HTTP requests answered", "route", "model", "status")
        self.request_seconds = seconds(
            "request", "HTTP request, from its first byte here to its last", "route", "model"
        )
        self.errors = counter("errors", "Requests that ended in a refusal or a fault, by its name", "model", "error")
        self.prediction_seconds = seconds(
            "prediction", "Lookup and scoring of one batch, as `latency_ms` in the log", "model", "version"
        )
        self.rows = counter("rows", "Rows answered", "model", "version", "role")
        self.shadow_failures = counter(
            "shadow_failures", "Rows on which the version beside the one that answered failed", "model", "version"
        )
        self.unknown_entities = counter(
            "unknown_entities", "Rows with an entity the online store has never seen", "model", "policy"
        )
        self.stale_features = counter(
            "stale_features", "Rows answered without a view: missing or stale", "model", "view"
        )
        self.feature_age_seconds = Histogram(
            "evergreen_feature_age_seconds",
            "Age of the oldest value of a view that a read used, at the moment it was asked about",
            ("model", "view"),
            buckets=AGES,
            registry=self.registry,
        )
        self.cache_lookups = counter(
            "cache_lookups", "Looks into a cache, by what came of them", "cache", "model", "result"
        )
        self.cache_entries = gauge("cache_entries", "Entries in a cache, of all processes together", "cache", "model")
        self.cache_evictions = counter(
            "cache_evictions", "Entries that went because their cache was full", "cache", "model"
        )
        self.queue_rows = gauge("queue_rows", "Rows waiting to be answered or being answered", "model")
        self.batch_rows = Histogram(
            "evergreen_batch_rows", "Rows answered together", ("model",), buckets=BATCHES, registry=self.registry
        )
        self.shed = counter(
            "shed", "Requests refused because the queue was full, or after waiting too long", "model", "why"
        )
        self.log_queue_rows = gauge("log_queue_rows", "Predictions in the spool, waiting to be written to the log")
        self.log_spool_bytes = gauge("log_spool_bytes", "Size of the spool on disk")
        self.log_torn_bytes = counter(
            "log_torn_bytes", "Bytes of the spool that could not be read: torn by a kill, or altered since"
        )
        self.log_rows = counter("log_rows", "Predictions handed to the log: written, repeated or lost", "outcome")
        self.log_failures = counter("log_failures", "Attempts to write a batch of predictions that failed")
        self.outcomes = counter("outcomes", "Outcomes reported; unknown ones are new too", "model", "kind")
        self.swaps = counter("swaps", "Times another release began to serve", "model")
        self.load_failures = counter("load_failures", "Attempts to load a release that failed", "model")
        self.poll_failures = counter("poll_failures", "Looks at the releases table that failed")
        self.serving_version = gauge(
            "serving_version",
            "Version in memory by role; 0 where there is none",
            "model",
            "role",
            over="livemostrecent",
        )
        self.challenger_share = gauge(
            "challenger_share", "Share of the keys the challenger answers", "model", over="livemostrecent"
        )
        for outcome in ("written", "repeated", "lost"):
            self.log_rows.labels(outcome)  # a rate over a counter that appears with its first loss misses that loss

    def introduce(self, model: str) -> None:
        """Show a model's counters from the start, at 0: a rate over one that appears with its first event misses that event."""
        for why in ("full", "late"):
            self.shed.labels(model, why)
        for cache in CACHES:
            self.cache_entries.labels(cache, model)
            self.cache_evictions.labels(cache, model)
            for result in ("hit", "miss"):
                self.cache_lookups.labels(cache, model, result)
        for one in (self.queue_rows, self.load_failures, self.batch_rows):
            one.labels(model)

    def page(self) -> bytes:
        """Everything, in Prometheus' text format; of all workers where there are several."""
        if (folder := os.environ.get(FOLDER)) is None:
            return generate_latest(self.registry)
        for gauges in Path(folder).glob("gauge_live*.db"):
            if not Path(f"/proc/{(pid := gauges.stem.rpartition('_')[2])}").exists():
                mark_process_dead(int(pid), folder)  # type: ignore[no-untyped-call]
        together = CollectorRegistry()
        MultiProcessCollector(together, folder)  # type: ignore[no-untyped-call]
        return generate_latest(together)


class CountRequests:
    """ASGI middleware: counts and times each request by route, model and status.

    Written against ASGI itself: Starlette's `BaseHTTPMiddleware` starts a task a request, which costs more than a
    lookup.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, is_known: Callable[[str], bool]) -> None:
        self._app = app
        self._requests = lru_cache(None)(
            metrics.requests.labels
        )  # it has three texts made and a lock taken to find them
        self._request_seconds = lru_cache(None)(metrics.request_seconds.labels)
        self._is_known = is_known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; count it just before its answer ends, so that who has the answer finds it counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, is_counted = time.perf_counter(), 500, False

        def count() -> None:
            nonlocal is_counted
            is_counted = True
            route, model = self._name(scope)
            self._requests(route, model, status).inc()
            self._request_seconds(route, model).observe(time.perf_counter() - started)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                count()
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if not is_counted:  # it broke off
                count()

    def _name(self, scope: Scope) -> tuple[str, str]:
        route: Any = scope.get("route")
        asked = scope.get("path_params", {}).get("model_name", "")
        model = asked if not asked or self._is_known(asked) else "unknown"
        return getattr(route, "path", "unmatched"), model
