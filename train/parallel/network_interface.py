"""Finds the network interface through which this machine reaches another one."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct

__all__ = ["interface_towards"]

_SIOCGIFADDR = 0x8915  # asks Linux for the IPv4 address of an interface
_NAME_BYTES, _ADDRESS_AT = 256, 20


def interface_towards(host: str) -> str | None:
    """Returns the interface's name; None if it is not known, or if the way leads over loopback. Sends nothing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, 9))  # of a datagram socket this only chooses the route
        own = probe.getsockname()[0]
        if own.startswith("127."):
            return None
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                asked = struct.pack(f"{_NAME_BYTES}s", name.encode())
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, asked)
                if socket.inet_ntoa(answer[_ADDRESS_AT : _ADDRESS_AT + 4]) == own:
                    return name
    return None
