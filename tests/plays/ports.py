"""Ports that nobody uses."""

from __future__ import annotations

import random
import socket

# Below those that a system gives to whoever asks for any port, as each connection does: one of
# them could be taken by others before it is used.
LOW, HIGH = 20_000, 32_768


def free_port() -> int:
    """A port of the loopback interface."""
    while True:
        port = random.SystemRandom().randrange(LOW, HIGH)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
