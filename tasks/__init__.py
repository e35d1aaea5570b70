"""@task only: retries, timeouts and artifacts where a call leaves the process; one call down."""
