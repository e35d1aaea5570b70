"""Fixtures of the flows' tests; see `flow_worlds.py`."""

from flow_worlds import empty_world, first_champion, prefect_api, rewrite_spec, world

__all__ = ["empty_world", "first_champion", "prefect_api", "rewrite_spec", "world"]
