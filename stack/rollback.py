"""`python -m stack.rollback MODEL`: back to the champion before, or to the champion without its challenger, at once.

Needs Evergreen's tables and nothing else: serving follows them within its poll interval. MLflow's aliases follow if MLflow
answers. Asked again under the same `--request` nothing changes.
"""

import argparse
import getpass
import sys

from evergreen.adapters.reconciler import show
from evergreen.errors import EvergreenError
from evergreen.wiring import wiring


def main() -> int:
    """Roll back and say who serves; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m stack.rollback", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--reason", default="asked for on the command line", help="goes into the journal")
    parser.add_argument("--request", help="a name of your own; asked again under it, nothing changes")
    asked = parser.parse_args()
    wire = wiring()
    try:
        with wire.records() as records:
            release = records.releases.take_back(
                asked.model,
                at=wire.settings.clock(),
                actor=f"command/{getpass.getuser()}",
                reason=asked.reason,
                request=f"command/{asked.request}" if asked.request else None,
            )
    except EvergreenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{asked.model} revision {release.revision}: version {release.champion} is the champion, no challenger")
    try:
        show(wire.engine, wire.registry, asked.model)
    except Exception as error:  # who serves is decided; the mirror is put right by the next reconciler
        print(f"MLflow's aliases are not changed yet: {error}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
