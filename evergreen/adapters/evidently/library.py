"""Evidently itself, imported quietly and with its telemetry off.

It costs 3.5 to 6 CPU seconds, so whoever needs it calls `evidently()` inside a function. Called by the modules beside it.
"""

import os
import warnings
from typing import Any


def evidently() -> Any:
    """The library, with its telemetry off."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read at import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls what numpy and litestar deprecate
        import evidently as library
        import evidently.metrics

    return library
