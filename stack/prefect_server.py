"""Prefect's server, with garbage collected from a thread of its own.

On SQLite the server's event loop can stand still for a minute when a collection runs inside it while a database thread
waits for it; collecting from another thread keeps the loop turning. Postgres does not need this, and is not hurt by it.
"""

import gc
import os
import threading

import uvicorn

COLLECT_SECONDS = 5.0


def main() -> None:
    """Serve until told to stop."""
    from prefect.server.api.server import create_app

    gc.disable()
    stop = threading.Event()

    def collect() -> None:
        while not stop.wait(COLLECT_SECONDS):
            gc.collect()

    threading.Thread(target=collect, name="garbage", daemon=True).start()
    try:
        uvicorn.run(
            create_app(),
            host=os.environ["PREFECT_SERVER_API_HOST"],
            port=int(os.environ["PREFECT_SERVER_API_PORT"]),
            log_level="warning",
            timeout_graceful_shutdown=3,
        )
    finally:
        stop.set()


if __name__ == "__main__":
    main()
