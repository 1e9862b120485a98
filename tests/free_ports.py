"""Chooses a port for a server that is started later."""

from __future__ import annotations

import contextlib
import random
import socket

__all__ = ["free_port"]

# Below the ports that systems give to connections and to servers that ask for any: a connection that begins before the
# server does could get one of those.
_PORTS = range(10_000, 32_000)


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    while True:
        port = random.SystemRandom().choice(_PORTS)  # tests side by side, whose generators begin alike, draw others
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
