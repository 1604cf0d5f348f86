"""Tries to connect to networks and services. On a host with a network, at most one SYN packet per documentation address
leaves it."""

from __future__ import annotations

import contextlib
import functools
import socket

RESOLVERS = "/etc/resolv.conf"
USUAL_RESOLVERS = ("127.0.0.11", "127.0.0.53")
QUERY = bytes.fromhex("a2a2010000010000000000000361 7a72 0769 6e76 616c 6964 00".replace(" ", "") + "00010001")
"""A DNS query for azr.invalid. Any answer, even `no such name`, means that a resolver was reached."""
ANSWER_S = 0.2


@functools.cache
def routes(addresses: tuple[str, ...], port: int, kind: int) -> list[str]:
    """The addresses to which a route exists. It does not wait: the kernel reports a missing route at once."""
    return [address for address in addresses if _has_route(address, port, kind)]


def _has_route(address: str, port: int, kind: int) -> bool:
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind) as out:
            out.setblocking(False)
            out.connect((address, port))
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return True


@functools.cache
def loopback(port: int) -> str:
    """Connect to a port on which the host listens."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return "connected to the host"


@functools.cache
def abstract(name: str) -> str:
    """Connect to an abstract unix socket on which the host listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
        out.settimeout(0.5)
        out.connect(f"\0{name}")
        return "connected to the host"


@functools.cache
def paths(names: tuple[str, ...]) -> list[str]:
    """The unix sockets that accept a connection."""
    reached: list[str] = []
    for name in names:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as out:
            out.settimeout(0.5)
            out.connect(name)
            reached.append(name)
    return reached


@functools.cache
def resolvers() -> list[str]:
    """The name servers that answer."""
    with contextlib.suppress(OSError):
        return [server for server in _configured() if _answers(server)]
    return [server for server in USUAL_RESOLVERS if _answers(server)]


def _configured() -> list[str]:
    with open(RESOLVERS, encoding="utf-8", errors="replace") as lines:  # noqa: PTH123  # a light program
        words = [line.split() for line in lines]
    named = [pair[1] for pair in words if len(pair) > 1 and pair[0] == "nameserver"]
    return [*named, *(server for server in USUAL_RESOLVERS if server not in named)]


def _answers(server: str) -> bool:
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as out:
            out.settimeout(ANSWER_S)
            out.connect((server, 53))
            out.send(QUERY)
            return bool(out.recv(512))
    except OSError:
        return False


@functools.cache
def interfaces() -> list[str]:
    """Network interfaces other than loopback."""
    with open("/proc/net/dev", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
        names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    return [name for name in names if name != "lo"]
