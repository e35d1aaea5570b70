"""`python -m stack.rollback MODEL`: back to the champion before, or to the champion without its challenger, at once.

Needs Evergreen's tables and nothing else: serving follows them within its poll interval. MLflow's aliases follow when
MLflow answers, which the command waits a little for. Asked again under the same `--request`, or within minutes without
one (an empty one is none), nothing changes; `--again` goes one further.
"""

import argparse
import getpass
import sys
from threading import Thread

from evergreen.adapters.reconciler import show
from evergreen.errors import EvergreenError
from evergreen.wiring import Wiring, wiring

MIRROR_SECONDS = 20.0
"""How long the command waits for MLflow to answer; on a slow machine half of it goes by with importing it."""
FOLLOWS = "its aliases are not changed yet, the next reconciler does it. Who serves is changed."


def main() -> int:
    """Roll back and say who serves; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stack.rollback", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--reason", default="asked for on the command line", help="goes into the journal")
    parser.add_argument("--request", help="a name of your own; asked again under it, nothing changes")
    parser.add_argument("--again", action="store_true", help="one further back, right after a roll-back")
    asked = parser.parse_args()
    request = f"command/{asked.request}" if asked.request else None
    wire = wiring()
    try:
        with wire.records() as records:
            done = records.releases.take_back(
                asked.model,
                at=wire.settings.clock(),
                actor=f"command/{getpass.getuser()}",
                reason=asked.reason,
                request=request,
                again=asked.again or request is not None,
            )
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    release = done.release
    now = f"{asked.model} revision {release.revision}: version {release.champion} is the champion, no challenger"
    print(f"{asked.model}: {done.already}" if done.already else now, flush=True)
    mirroring = Thread(target=_mirror, args=(wire, asked.model), daemon=True)
    mirroring.start()
    mirroring.join(MIRROR_SECONDS)
    if mirroring.is_alive():
        print(f"MLflow has not answered yet: {FOLLOWS}", file=sys.stderr)
    return 0


def _mirror(wire: Wiring, model: str) -> None:
    try:
        show(wire.engine, wire.registry, model)
    except Exception as error:  # MLflow raises whatever its transport does
        print(f"MLflow does not answer ({error}): {FOLLOWS}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
