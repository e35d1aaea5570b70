"""What an on-call engineer looks at: a real Prometheus reads serving, and every query of the dashboard and the alerts works."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.metrics_core import Metric

from evergreen.settings import ROOT
from evergreen.wiring import Wiring
from serving.app import create_app
from serving.metrics import Metrics
from tests.serving.server_process import Load, a_server, released, served
from tests.serving.serving_factories import NOON, a_flight, eventually

PROMETHEUS = ROOT / "deployments" / "prometheus"
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deployments" / "grafana" / "serving.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"][0]["rules"]
PANELS = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = [
    *PANELS,
    *[(one["name"], one["expr"]) for one in DASHBOARD["annotations"]["list"]],
    *[(rule["alert"], rule["expr"]) for rule in RULES],
]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
OF_PROMETHEUS = {"job", "instance", "le"}
NOTHING_YET = {"Shadow failures"}
"""Panels of what does not happen in the test."""


def exported() -> dict[str, set[str]]:
    """Every name at /metrics, with the labels it has."""
    metrics = [one for one in vars(Metrics()).values() if hasattr(one, "describe")]
    described: list[tuple[Metric, set[str]]] = [(one.describe()[0], set(one._labelnames)) for one in metrics]
    return {family.name + suffix: labels for family, labels in described for suffix in SUFFIXES[family.type]}


def a_query(expression: str) -> str:
    """As Grafana sends it."""
    return expression.replace("$__rate_interval", "1m").replace("$model", ".*")


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_a_query_asks_for_names_and_labels_there_are(title: str, expression: str) -> None:
    names = exported()
    asked = set(re.findall(r"\bevergreen_\w+", expression))
    assert asked <= names.keys()
    for name, selector in re.findall(r"\b(evergreen_\w+)\{([^}]*(?:\{[^}]*\}[^}]*)*)\}", expression):
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector)) <= names[name] | OF_PROMETHEUS
    labels = OF_PROMETHEUS.union(*(names[name] for name in asked))
    for listed in re.findall(r"(?:by|on) \(([^)]*)\)", expression):
        assert {label.strip() for label in listed.split(",")} <= labels


def test_everything_that_is_counted_is_shown() -> None:
    shown = " ".join(expression for _, expression in QUERIES)
    for name in exported():
        family = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert re.search(rf"\b{family}(_total|_bucket|_sum|_count)?\b", shown), f"no panel and no alert shows {name}"


def test_every_alert_says_what_to_do_and_when_it_fires_is_written_down() -> None:
    written = (PROMETHEUS / "alerts_test.yml").read_text()
    for rule in RULES:
        assert rule["alert"] in written
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "action"} <= rule["annotations"].keys()


def found(program: str) -> str:
    """Where a program of Debian's package is; skips without it, and fails where everything has to be there."""
    path = shutil.which(program)
    if path is None:
        assert os.environ.get("CI") != "true", f"no {program}: install Debian's package prometheus"
        pytest.skip(f"no {program}: apt-get install prometheus")
    return path


@pytest.mark.parametrize(
    "asked",
    [
        ["check", "config", str(PROMETHEUS / "prometheus.yml")],
        ["check", "rules", str(PROMETHEUS / "alerts.yml")],
        ["test", "rules", str(PROMETHEUS / "alerts_test.yml")],
    ],
)
def test_promtool_accepts_it(asked: list[str]) -> None:
    ended = subprocess.run([found("promtool"), *asked], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout + ended.stderr


@contextmanager
def a_prometheus(folder: Path, target: str) -> Iterator[httpx.Client]:
    """A real one with the configuration of `deployments/`, which asks `target` every 200 ms."""
    program = found("prometheus")
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] |= {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    configuration["rule_files"] = [str(PROMETHEUS / "alerts.yml")]
    for job in configuration["scrape_configs"]:
        job |= {"scrape_interval": "200ms", "static_configs": [{"targets": [target]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    process = subprocess.Popen(command)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            eventually(lambda: is_ready(client), seconds=60)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def asked(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The result of a query; fails where Prometheus does not understand it."""
    answer = prometheus.get("/api/v1/query", params={"query": a_query(expression)}).json()
    assert answer["status"] == "success", (expression, answer)
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def is_told(prometheus: httpx.Client, expression: str) -> bool:
    """True where a query has a number as its result; it may have a share of nothing beside it."""
    result = asked(prometheus, expression)
    return any(one["value"][1] != "NaN" for one in result)


def value(prometheus: httpx.Client, expression: str) -> float:
    """The one value of a query; 0 where there is none yet."""
    result = asked(prometheus, expression)
    return float(result[0]["value"][1]) if result else 0.0


def has_reached(prometheus: httpx.Client, expression: str, enough: float) -> bool:
    return value(prometheus, expression) >= enough


def trouble(client: httpx.Client) -> None:
    """A stale view, an unknown aircraft, a refusal and an outcome."""
    late = (NOON + timedelta(hours=3)).isoformat()
    asked = "/predict/flight_delay"
    assert client.post(asked, json={"rows": a_flight(tailnum="N0NE"), "as_of": late}).status_code == 200
    assert client.post(asked, json={"rows": []}).status_code == 422
    outcome = {"example_id": "scraped", "label": 1, "label_timestamp": late}
    assert client.post("/outcomes/flight_delay", json={"outcomes": [outcome]}).status_code == 200


def test_a_prometheus_reads_a_server_and_answers_every_query(installation: Wiring, tmp_path: Path) -> None:
    released(installation, 1)
    with served(create_app(installation.settings)) as client:
        eventually(lambda: client.get("/ready").status_code == 200, seconds=60)
        with a_prometheus(tmp_path, client.base_url.netloc.decode()) as prometheus:
            eventually(lambda: value(prometheus, "sum(up)") == 2, seconds=60)
            trouble(client)
            with Load(str(client.base_url), "scraped"):
                for title, expression in PANELS:
                    if title not in NOTHING_YET:
                        told = partial(is_told, prometheus, expression)
                        eventually(told, seconds=60, what=f"{title}: {expression}")
            for _, expression in QUERIES:
                asked(prometheus, expression)
            rules = prometheus.get("/api/v1/rules").json()["data"]["groups"][0]["rules"]
            assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
            assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_prometheus_reads_what_all_workers_count_while_they_swap_under_load(
    installation: Wiring, tmp_path: Path
) -> None:
    released(installation, 1)
    with (
        a_server(installation, EVERGREEN_SERVING_WORKERS="2") as server,
        a_prometheus(tmp_path, server.client.base_url.netloc.decode()) as prometheus,
    ):
        swaps = "sum(evergreen_swaps_total)"
        with Load(str(server.client.base_url), "swapped") as load:
            eventually(lambda: len(load.answered) > 100, seconds=60)
            for number in range(10):
                # Each time until both workers have it.
                before = value(prometheus, swaps)
                released(installation, 2 - number % 2)
                eventually(partial(has_reached, prometheus, swaps, before + 2), seconds=180)
        assert load.failures == []
        counted = 'sum(evergreen_rows_total{model="flight_delay"})'
        eventually(lambda: value(prometheus, counted) == len(load.answered), seconds=60)
        by_version = asked(prometheus, 'sum by (version) (evergreen_rows_total{model="flight_delay"})')
        assert {one["metric"]["version"] for one in by_version} == {"1", "2"}
