"""What Evidently measured at each look, kept where its own UI finds it: `make evidently`.

A project a model, a run a window, and a dashboard of how many features drifted. Of each model the newest
`[monitor].evidently_runs` windows are kept, whatever the traffic: opening a workspace reads all of them. Runs hold
figures and histograms, never rows. Looking at the same window again replaces its run. Called by `reports.py`.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evergreen.adapters.evidently.library import evidently as library
from evergreen.types import DriftVerdict, Window


@dataclass(frozen=True)
class EvidentlyWorkspace:
    """Where runs are kept, and how many of each model."""

    folder: Path
    runs: int

    def keep(self, snapshot: Any, *, model: str, window: Window, verdict: DriftVerdict | None) -> None:
        """Add Evidently's `snapshot` of a window to the model's project in `folder`/workspace; drop the oldest.

        Which run is of which window stands in `folder`/MODEL.json, since a run of fifty features takes 3 MB to ask.
        """
        library()
        index = self.folder / f"{model}.json"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from evidently.ui.workspace import Workspace

            self.folder.mkdir(parents=True, exist_ok=True)
            workspace = Workspace.create(str(self.folder / "workspace"))
            project = next(iter(workspace.search_project(model)), None) or _project(workspace, model)
            told = "" if verdict is None else f", by days {verdict.share:.0%} of the features drifted"
            added = workspace.add_run(project.id, snapshot, name=f"{window}{told}")
            known: dict[str, str] = json.loads(index.read_text()) if index.exists() else {}
            known[window.end.isoformat()] = str(added.id)
            known = {end: known[end] for end in sorted(known)[-self.runs :]}
            index.write_text(json.dumps(known))
            for run in workspace.list_runs(project.id):
                if str(run) not in known.values():  # too old, replaced, or left by a look that was killed
                    workspace.delete_run(project.id, run)


def _project(workspace: Any, model: str) -> Any:
    from evidently.sdk.models import DashboardPanelPlot, PanelMetric

    project = workspace.create_project(model, "What the watch compared, window by window.")
    project.dashboard.add_panel(
        DashboardPanelPlot(
            title="Share of the features that drifted, by Evidently's distances",
            subtitle="The verdict that counts is by days; each run's name says it.",
            size="full",
            values=[PanelMetric(legend="share", metric="DriftedColumnsCount", metric_labels={"value_type": "share"})],
            plot_params={"plot_type": "line"},
        )
    )
    return project
