"""A StatsD server on loopback, and what it receives of this package's metrics."""

from __future__ import annotations

import socket

PREFIX, END = "airflow.opensearch_batch.", b"end"
Received = dict[tuple[str, tuple[tuple[str, str], ...]], str]


class StatsD:
    """A StatsD server on loopback."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(300)

    def received(self) -> list[tuple[str, tuple[tuple[str, str], ...], str]]:
        """Return name, tags and value of each of this package's metrics since the last call."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(END, self.socket.getsockname())
        found = []
        while (packet := self.socket.recv(65_536)) != END:
            for line in packet.decode().splitlines():
                key, _, value = line.partition(":")
                name, *tags = key.split(",")
                if name.startswith(PREFIX):
                    pairs = sorted(tag.split("=") for tag in tags)
                    found.append((name.removeprefix("airflow."), tuple((tag, text) for tag, text in pairs), value))
        return found

    def values(self) -> Received:
        """Return the values by name and tags; each is measured once."""
        received = self.received()
        values = {(name, tags): value for name, tags, value in received}
        assert len(values) == len(received)
        return values
