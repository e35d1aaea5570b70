"""Requests over HTTP/1.1 from one core: prebuilt bytes, kept connections, epoll, and no client library.

Closed loop: every connection asks again as soon as it is answered; that shows what a server can do. Open loop: requests
are due at random moments (Poisson) whatever the server does, and latency counts from the moment a request was due, so
that one slow answer is paid by all that waited behind it (no coordinated omission). `bench/serving/__main__.py` pins this
process to a core of its own.
"""

import select
import socket
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np

MOST_PENDING_SECONDS = 5.0
"""How long after its end a load waits for answers that are due."""


@dataclass(frozen=True)
class Measured:
    """What came of some seconds of load."""

    answered: int
    failed: int
    """Answers other than 200, and requests without any."""
    seconds: float
    latencies_ms: Sequence[float]

    @property
    def per_second(self) -> float:
        """Good answers."""
        return self.answered / self.seconds

    def quantile_ms(self, share: float) -> float:
        """Of the good answers' latencies; there must be some."""
        return float(np.quantile(self.latencies_ms, share))


def request(path: str, body: bytes) -> bytes:
    """The bytes of a POST with a JSON body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def closed_loop(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Measured:
    """Keep `connections` requests under way for `seconds`."""
    load = _Load(port, connections, cycle(requests))
    begun = time.perf_counter()
    for connection in list(load.idle):
        load.send(connection, time.perf_counter())
    while (now := time.perf_counter()) < begun + seconds:
        load.poll(0.1)
        while load.idle:
            load.send(load.idle[-1], time.perf_counter())
    done = load.counted(now - begun)
    while (
        load.pending and time.perf_counter() < now + MOST_PENDING_SECONDS
    ):  # the next load meets a server without a queue
        load.poll(0.1)
    load.close()
    return done


def open_loop(
    port: int, requests: Sequence[bytes], rate: float, seconds: float, connections: int = 64, seed: int = 0
) -> Measured:
    """Ask `rate` times a second, on whichever connection is free; what finds none free waits, and its wait counts."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 1.2) + 10)
    due = deque(float(at) for at in np.cumsum(gaps) if at < seconds)
    load, asked = _Load(port, connections, cycle(requests)), len(due)
    begun = time.perf_counter()
    while due or load.pending:
        now = time.perf_counter() - begun
        if now > seconds + MOST_PENDING_SECONDS:
            break
        while due and due[0] <= now and load.idle:
            load.send(load.idle[-1], begun + due.popleft())
        load.poll(max(0.0, due[0] - now) if due and load.idle else 0.1)
    done = load.counted(seconds)
    load.close()
    return Measured(done.answered, asked - done.answered, seconds, done.latencies_ms)


@dataclass(eq=False)
class _Connection:
    socket: socket.socket
    due: float = 0.0
    received: bytearray = field(default_factory=bytearray)


class _Load:
    def __init__(self, port: int, connections: int, requests: Iterator[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._epoll = select.epoll()
        self._by_file: dict[int, _Connection] = {}
        self._latencies_ms: list[float] = []
        self._failed = 0
        self.idle: list[_Connection] = []
        for _ in range(connections):
            self._connect()

    @property
    def pending(self) -> int:
        """Requests under way."""
        return len(self._by_file) - len(self.idle)

    def send(self, connection: _Connection, due: float) -> None:
        """Ask the next request on an idle connection."""
        self.idle.remove(connection)
        connection.due = due
        connection.socket.sendall(next(self._requests))

    def poll(self, timeout_seconds: float) -> None:
        """Take what came in; sleeps till then, since whoever looks without pause keeps a store that is asked from this core."""
        select.select([self._epoll], [], [], timeout_seconds)  # epoll itself counts in whole milliseconds
        for file, _ in self._epoll.poll(0):
            connection = self._by_file[file]
            try:
                content = connection.socket.recv(1 << 16)
            except ConnectionError:
                content = b""
            if not content:
                self._failed += connection not in self.idle  # a server may hang up on who asks nothing
                self._drop(connection)
                self._connect()
                continue
            connection.received += content
            if (good := _status(connection.received)) is None:
                continue
            if good:
                self._latencies_ms.append(1000 * (time.perf_counter() - connection.due))
            else:
                self._failed += 1
            connection.received.clear()
            self.idle.append(connection)

    def counted(self, seconds: float) -> Measured:
        """What came so far; what is under way is not counted."""
        return Measured(len(self._latencies_ms), self._failed, seconds, tuple(self._latencies_ms))

    def close(self) -> None:
        """Every connection."""
        for connection in list(self._by_file.values()):
            self._drop(connection)
        self._epoll.close()

    def _connect(self) -> None:
        plug = socket.create_connection(("127.0.0.1", self._port), timeout=30)
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._by_file[plug.fileno()] = connection = _Connection(plug)
        self._epoll.register(plug.fileno(), select.EPOLLIN)
        self.idle.append(connection)

    def _drop(self, connection: _Connection) -> None:
        self._epoll.unregister(connection.socket.fileno())
        del self._by_file[connection.socket.fileno()]
        if connection in self.idle:
            self.idle.remove(connection)
        connection.socket.close()


def _status(received: bytearray) -> bool | None:
    """Was the answer good? None while it is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    place = head.find(b"content-length:")
    if place >= 0:
        length = int(head[place + 15 : place + 25].split(b"\r", 1)[0])
        whole = len(received) >= end + 4 + length
    else:  # in chunks
        whole = received.endswith(b"0\r\n\r\n")
    return head.startswith(b"http/1.1 200") if whole else None
