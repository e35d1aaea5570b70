"""The lean read of a Redis online store, in one pipeline; see `read.py`. The only module that imports Redis' client, an extra."""

from collections.abc import Sequence
from functools import cached_property
from threading import local
from typing import Any

from feast import FeatureStore
from feast.infra.online_stores.helpers import _mmh3
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, TimeoutError
from redis.retry import Retry

from evergreen.adapters.online.values import redis_seconds, values
from evergreen.adapters.online.view import Held, OnlineStore, StoredView, Wanted
from evergreen.errors import OnlineStoreAway

ANSWER_SECONDS = 1.0
"""A Redis that says nothing for so long is away."""
REDIS_AWAY = (ConnectionError, TimeoutError)
"""Redis' own, as its client raises them."""


class RedisRead:
    """One pipeline for all views; those with the same entities lie in one hash and share a command.

    It is written in Redis' protocol (RESP) here, the fields of a view once a process: the client would put every command
    together anew, which takes longer than the answer does. Connections and the parser are the client's.
    """

    def __init__(self, store: FeatureStore, through_feast: OnlineStore) -> None:
        self._store = store
        self._project = store.project.encode()
        self._through_feast = through_feast
        self._fields: dict[str, bytes] = {}
        self._mine = local()

    @cached_property
    def _client(self) -> Any:
        online = self._store._get_provider().online_store
        return online._get_client(self._store.config.online_store)

    def read(self, wanted: Sequence[Wanted]) -> list[list[Held]]:
        """See `OnlineStore`."""
        counts: dict[bytes, int] = {}
        fields: dict[bytes, bytes] = {}
        asked: list[list[tuple[bytes, int]]] = []
        try:
            for view, keys in wanted:
                own, count = self._fields_of(view), len(view.features) + 1
                mine = []
                for key in keys:
                    name = view.encoded(key) + self._project
                    start = counts.get(name, 0)
                    mine.append((name, start))
                    counts[name] = start + count
                    fields[name] = fields[name] + own if start else own
                asked.append(mine)
        except TypeError:
            return self._through_feast.read(wanted)
        hashes = dict(
            zip(counts, self._ask([_hmget(name, counts[name], fields[name]) for name in counts]), strict=True)
        )
        return [
            [_of_hash(hashes[name][start : start + len(view.features) + 1]) for name, start in mine]
            for (view, _), mine in zip(wanted, asked, strict=True)
        ]

    def _ask(self, commands: Sequence[bytes]) -> list[list[bytes | None]]:
        """One answer a command. Raises `OnlineStoreAway`: whoever asked is waiting, and asks again as it thinks fit."""
        if not commands:
            return []
        connection, written = self._connection(), b"".join(commands)

        def ask() -> list[list[bytes | None]]:
            connection.send_packed_command([written])
            return [connection.read_response() for _ in commands]

        try:
            try:
                return ask()
            except ConnectionError:  # as of one that Redis closed since, or that broke in its restart
                connection.disconnect()
                return ask()
        except BaseException as error:
            connection.disconnect()  # answers nobody has read would be the next one's
            if isinstance(error, REDIS_AWAY):
                raise OnlineStoreAway(f"the online store, Redis, does not answer: {error}") from error
            raise

    def _connection(self) -> Any:
        """This thread's: to borrow the client's takes as long as to decode an answer, and its retries sleep for seconds."""
        if not hasattr(self._mine, "connection"):
            made = self._client.connection_pool.make_connection()
            made.socket_timeout = made.socket_connect_timeout = ANSWER_SECONDS
            made.retry = Retry(NoBackoff(), 0)
            self._mine.connection = made
        return self._mine.connection

    def _fields_of(self, view: StoredView) -> bytes:
        if (known := self._fields.get(view.identity)) is None:
            known = self._fields[view.identity] = b"".join(map(_bulk, redis_fields(view)))
        return known


def redis_fields(view: StoredView) -> list[bytes]:
    """A view's fields in an entity's hash: when it was known, then its features."""
    return [f"_ts:{view.name}".encode(), *(_mmh3(f"{view.name}:{feature}") for feature in view.features)]


def _bulk(content: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(content), content)


def _hmget(name: bytes, count: int, fields: bytes) -> bytes:
    return b"*%d\r\n$5\r\nHMGET\r\n$%d\r\n%b\r\n%b" % (count + 2, len(name), name, fields)


def _of_hash(contents: Sequence[bytes | None]) -> Held:
    moment = contents[0]
    return None if moment is None else (redis_seconds(moment), values(contents[1:]))
