"""One vendor a file.

`prometheus_client` comes first of all: Feast's import switches it, for the whole process, to counters that live in files
and are shared by everything in the process, unless it is there already.
"""

import prometheus_client  # noqa: F401
