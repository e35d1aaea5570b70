"""`python -m serving`: the API on `EVERGREEN_HOST` and `EVERGREEN_SERVING_PORT`."""

import logging
import sys

from evergreen.errors import EvergreenError
from evergreen.settings import Settings
from serving.app import serve


def main() -> int:
    """Serve until stopped; returns the exit status."""
    configure_logging()
    try:
        serve(Settings())
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def configure_logging() -> None:
    """To stderr, from the level of information on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
