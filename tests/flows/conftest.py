"""One Prefect server and one first champion for all flow tests: a module that imported these would make its own."""

from tests.flow_worlds import empty_world, first_champion, prefect_api, rewrite_spec, world
