"""`python -m serving`: the API on `EVERGREEN_HOST` and `EVERGREEN_SERVING_PORT`."""

import logging
import os
import sys

from evergreen.errors import EvergreenError
from evergreen.settings import Settings
from serving.app import serve


def main() -> int:
    """Serve until stopped; returns the exit status."""
    configure_logging()
    # Of MLflow's client, by itself and for each worker: what serving asks in vain it asks again, so nobody waits for long.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
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
