"""Wait until an address answers."""

import time

import httpx

from evergreen.errors import ConfigurationError

POLL_SECONDS = 0.25


def wait_for(url: str, name: str, timeout_seconds: float = 180.0) -> None:
    """Return when `url` answers 200; raises `ConfigurationError` after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    last = "no answer"
    while time.monotonic() < deadline:
        try:
            response = httpx.get(url, timeout=5.0)
            if response.status_code == 200:
                return
            last = f"status {response.status_code}"
        except httpx.HTTPError as error:
            last = f"{type(error).__name__}: {error}"
        time.sleep(POLL_SECONDS)
    raise ConfigurationError(f"{name} did not become healthy at {url} in {timeout_seconds:.0f} s (last: {last})")
