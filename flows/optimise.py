"""Build optimised variants of a version on request, and let each serve only if it is no worse and faster than its parent.

A variant that passes is a version like any other: `roll_out` with action=start and its number gives it its traffic. A refused
one is in the registry with its reasons. Run again, it finds what it registered.
"""

from prefect import flow

from evergreen.types import ModelVersion
from evergreen.wiring import wiring
from tasks.optimise import judge_variant, make_variant, makeable


@flow(flow_run_name="optimise-{model}-{version}")
def optimise(version: int, model: str = "flight_delay", variants: tuple[str, ...] | None = None) -> list[ModelVersion]:
    """Make each variant of a version, judge it beside that version on its holdout and by its speed, and register it.

    Args:
        version: The parent: a version that passed its gate.
        model: Name of a file in `models/`.
        variants: Of `evergreen/training/network/variants.py`; empty means all that can be made here.
    """
    spec = wiring().spec(model)
    parent = wiring().registry.servable(model, version)
    return [judge_variant(spec, parent, make_variant(parent, name), name) for name in variants or makeable()]
