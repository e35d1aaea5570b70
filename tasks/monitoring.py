"""A model's monitoring page, written anew at every look of the watch."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_link_artifact

from evergreen.pages.monitoring import Monitored, render
from evergreen.spec import ModelSpec
from evergreen.wiring import Wiring, wiring

MOST_LOOKS = 120
"""Windows that are drawn, the newest ones."""


@task(retries=1, retry_delay_seconds=5)
def show_monitoring(spec: ModelSpec, as_of: datetime) -> str:
    """Write `reports/NAME-monitoring.html` under EVERGREEN_HOME and keep it with the champion's run; returns its link."""
    wire = wiring()
    with wire.records() as records:
        release = records.releases.current(spec.name)
    champion = None
    if release is not None and release.champion is not None:
        champion = wire.registry.version(spec.name, release.champion)
    leant_on = wire.registry.evaluation(champion).attribution if champion is not None else None
    written = write_page(wire, spec, as_of, {} if leant_on is None else leant_on.shares)
    link = written.as_uri() if champion is None else wire.registry.log_file(champion.run_id, written, "watch")
    create_link_artifact(key="monitoring", link=link, link_text=f"{spec.name}: monitoring, as of {as_of:%Y-%m-%d}")
    get_run_logger().info("the monitoring page is %s", written)
    return link


def write_page(wire: Wiring, spec: ModelSpec, as_of: datetime, importance: Mapping[str, float]) -> Path:
    """What `show_monitoring` writes; a killed run leaves no half page.

    `importance` is each feature's share of what the champion leans on; empty where nobody measured it.
    """
    with wire.records() as records:
        monitored = Monitored(
            model=spec.name,
            task=spec.model.task,
            as_of=as_of,
            records=records.watched.records(spec.name, MOST_LOOKS, before=as_of),
            estimates=records.estimates.history(spec.name, MOST_LOOKS, before=as_of),
            journal=[entry for entry in records.releases.journal(spec.name) if entry.at <= as_of],
            requests=[asked for asked in records.admissions.recent(spec.name) if asked.as_of <= as_of],
            importance=importance,
        )
    html = wire.settings.home / "reports" / f"{spec.name}-monitoring.html"
    html.parent.mkdir(parents=True, exist_ok=True)
    partial = html.with_name(html.name + ".partial")
    partial.write_text(render(monitored), encoding="utf-8")
    return partial.replace(html)
