"""Is a port free, and who holds it if not?"""

import socket
from collections.abc import Mapping

import psutil

from evergreen.errors import ConfigurationError


def require_free(host: str, ports: Mapping[str, tuple[str, int]]) -> None:
    """Raise `ConfigurationError` naming every taken port of `{process: (variable, port)}`, its holder and the cure."""
    twice = sorted({port for _, port in ports.values() if [p for _, p in ports.values()].count(port) > 1})
    if twice:
        raise ConfigurationError(
            f"port {twice[0]} is asked for twice: {', '.join(v for v, p in ports.values() if p == twice[0])}"
        )
    taken = [
        f"port {port} for {name} is taken{_holder(port)}; stop it or choose another with {variable}=PORT"
        for name, (variable, port) in ports.items()
        if not is_free(host, port)
    ]
    if taken:
        raise ConfigurationError("\n       ".join(taken))


def is_free(host: str, port: int) -> bool:
    """Can this process listen there now?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str) -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return ""
