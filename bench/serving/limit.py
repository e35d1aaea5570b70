"""How fast the load generator itself is: it asks a server that reads nothing and answers the same bytes each time."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import cast

from bench.serving.load import closed_loop, request
from evergreen.settings import ROOT

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{"score": 0.5}'
BODY_BYTES = 1_000


class Echo(asyncio.Protocol):
    """Answers whatever comes."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        """At once; a request of the bench is small enough to come in one piece."""
        self.transport.write(ANSWER)


async def answer(port: int) -> None:
    """Until killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


def ceiling(core: int, seconds: float, connections: int = 32) -> float:
    """Requests a second."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.serving.limit", str(port)], cwd=ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionError:
                time.sleep(0.1)
        return closed_loop(port, [request("/", b"x" * BODY_BYTES)], connections, seconds).per_second
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(answer(int(sys.argv[1])))
