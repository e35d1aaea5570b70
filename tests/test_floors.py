"""Imports point down: `DESIGN.md`, "Floors". Imports inside functions count too."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    ("demo", "stack"),
    ("flows",),
    ("tasks",),
    ("serving",),
    ("evergreen.wiring",),
    ("evergreen.adapters", "evergreen.training", "evergreen.monitoring"),
    (
        "evergreen.ab_test",
        "evergreen.attribution",
        "evergreen.card",
        "evergreen.evaluation",
        "evergreen.figures",
        "evergreen.gate",
        "evergreen.groups",
        "evergreen.pages",
        "evergreen.paired",
        "evergreen.parity",
        "evergreen.release",
        "evergreen.recalibration",
        "evergreen.reliability",
        "evergreen.rival",
        "evergreen.rollout",
        "evergreen.sequential",
        "evergreen.tuning",
        "evergreen.verdict",
    ),
    ("evergreen.spec", "evergreen.settings"),
    ("evergreen.types", "evergreen.errors"),
]
"""From the top floor to the ground."""

VENDORS = {
    "prefect": ("flows", "tasks", "stack", "demo"),
    "fastapi": ("serving",),
    "prometheus_client": ("serving", "evergreen.adapters"),
    "torch": ("evergreen.training",),
    "ray": ("evergreen.training.run.cluster",),
    "feast": (
        "evergreen.adapters.feast",
        "evergreen.adapters.service_plan",
        "evergreen.adapters.asof_store",
        "evergreen.adapters.online",
        "feature_repo",
    ),
    "mlflow": ("evergreen.adapters.mlflow",),
    "matplotlib": ("evergreen.adapters.plots",),
    "optuna": ("evergreen.adapters.studies",),
    "sklearn": ("evergreen.adapters.logistic",),
    "lightgbm": ("evergreen.adapters.boosted_trees",),
    "onnxruntime": ("evergreen.training.network.programs",),
    "evidently": ("evergreen.adapters.evidently",),
    "cryptography": ("evergreen.adapters.signatures",),
}
"""Who alone may import whom."""


def modules() -> list[tuple[str, Path]]:
    folders = ("demo", "evergreen", "feature_repo", "flows", "serving", "stack", "tasks")
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return [(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), p) for p in paths]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(module: str, place: str) -> bool:
    return module == place or module.startswith(place + ".")


def floor(module: str) -> int | None:
    return next((level for level, places in enumerate(FLOORS) if any(within(module, p) for p in places)), None)


def upward(module: str, names: set[str]) -> list[str]:
    level = floor(module)
    if level is None:
        return []
    return sorted(name for name in names if (other := floor(name)) is not None and other < level)


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(module: str, path: Path) -> None:
    assert upward(module, imports(path)) == []


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_each_vendor_lives_on_its_floor(module: str, path: Path) -> None:
    strangers = [
        name
        for name in imports(path)
        for vendor, homes in VENDORS.items()
        if within(name, vendor) and not any(within(module, home) for home in homes)
    ]
    assert strangers == []


@pytest.mark.parametrize(
    ("module", "path"),
    [m for m in modules() if within(m[0], "feature_repo")],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_the_feature_repo_knows_nothing_of_ours_but_types_and_errors(module: str, path: Path) -> None:
    ours = {name for name in imports(path) if within(name, "evergreen")}
    assert {name for name in ours if not within(name, "evergreen.types") and not within(name, "evergreen.errors")} <= {
        "evergreen"
    }


def test_every_module_of_the_library_has_a_floor() -> None:
    homeless = [m for m, _ in modules() if within(m, "evergreen") and m != "evergreen" and floor(m) is None]
    assert homeless == []


def test_an_upward_import_would_be_seen() -> None:
    assert upward("evergreen.gate", {"evergreen.types", "tasks.gate"}) == ["tasks.gate"]
    assert upward("tasks.gate", {"evergreen.gate"}) == []
