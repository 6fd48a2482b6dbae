"""Keeps ports on the loopback address while Ray runs on this host alone."""

from __future__ import annotations

import os
from typing import Any

import grpc.aio

VARIABLE = "SAM2_AMG_LOOPBACK"
_EVERYWHERE = ("[::]:", "0.0.0.0:")


def listen_on_loopback() -> None:
    """Has gRPC servers that this process opens on all addresses listen on the loopback address, if VARIABLE is set.

    Ray Serve opens a replica's port on all addresses, wherever Ray's own ports are.
    """
    if VARIABLE not in os.environ:
        return
    server = type(grpc.aio.server())
    for name in ("add_insecure_port", "add_secure_port"):
        setattr(server, name, _narrowed(getattr(server, name)))


def _narrowed(add_port: Any) -> Any:
    def add(self: Any, address: str, *rest: Any) -> int:
        for prefix in _EVERYWHERE:
            if address.startswith(prefix):
                address = f"127.0.0.1:{address.removeprefix(prefix)}"
        return add_port(self, address, *rest)

    return add
