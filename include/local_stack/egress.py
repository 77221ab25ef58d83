"""Egress proxy: the node reaches the AI services under their public names, and nothing else, whatever a connector says.

The JVM is told to use this proxy for everything outside loopback. `CONNECT host:443` ends TLS here with a certificate
for that host and passes the bytes to the local AI services; a host that is not in the list is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import ssl
import sys
from pathlib import Path

import msgspec

from include.local_stack.egress_certificates import CERTIFICATE, HOSTS, KEY
from include.local_stack.settings import LOOPBACK

LOG = logging.getLogger("egress")
MAX_HEAD_BYTES = 16 * 1024
HEAD_WAIT_S = 30.0
CHUNK_BYTES = 64 * 1024
HTTPS_PORT, HTTP_PORT = 443, 80
HEALTH_PATH = "/health"


class Target(msgspec.Struct, frozen=True):
    """Where a client wants to go; port 0 is the proxy itself."""

    host: str
    port: int


class Refused(Exception):
    """The request is answered with this status and goes nowhere."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def target_of(head: bytes) -> Target:
    """The target of a request head, if it is one we serve."""
    line = head.split(b"\r\n", 1)[0].decode("latin-1")
    method, _, rest = line.partition(" ")
    if method == "GET" and rest.startswith(f"{HEALTH_PATH} "):
        return Target(LOOPBACK, 0)
    if method != "CONNECT":
        raise Refused("501 Not Implemented", f"{line[:200]}: only CONNECT is spoken here")
    host, _, port = rest.split(" ", 1)[0].rpartition(":")
    if host.lower() not in HOSTS or port not in (str(HTTPS_PORT), str(HTTP_PORT)):
        raise Refused("502 Bad Gateway", f"{host}:{port} is not a host of the local AI services")
    return Target(host.lower(), int(port))


class Proxy:
    """Serves on loopback; every accepted connection ends at the AI services' port."""

    def __init__(self, *, upstream_port: int, tls: ssl.SSLContext, upstream_host: str = LOOPBACK) -> None:
        self._upstream = (upstream_host, upstream_port)
        self._tls = tls

    async def start(self, port: int) -> asyncio.Server:
        """Listen; port 0 picks a free one."""
        return await asyncio.start_server(self._serve, LOOPBACK, port, limit=MAX_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (ConnectionError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError) as error:
            LOG.info("connection ended: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_WAIT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            target = target_of(head)
            if target.port == 0:
                await _reply(writer, "200 OK", "ok")
                return
            upstream = await self._connect()
        except asyncio.LimitOverrunError:
            await _refuse(writer, Refused("431 Request Header Fields Too Large", "request head too long"))
        except Refused as refused:
            await _refuse(writer, refused)
        else:
            await self._tunnel(target, (reader, writer), upstream)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(*self._upstream)
        except OSError as error:
            reason = f"the AI services do not answer on port {self._upstream[1]}"
            raise Refused("502 Bad Gateway", reason) from error

    async def _tunnel(
        self,
        target: Target,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        LOG.info("CONNECT %s:%d", target.host, target.port)
        try:
            client[1].write(b"HTTP/1.1 200 Connection Established\r\n\r\n")
            await client[1].drain()
            if target.port == HTTPS_PORT:
                await client[1].start_tls(self._tls, ssl_handshake_timeout=HEAD_WAIT_S)
            await _pump_both(client, upstream)
        finally:
            upstream[1].close()


async def _pump_both(
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Pass bytes both ways until one side ends: HTTP peers close only between answers."""
    pumps = [
        asyncio.create_task(_pump(client[0], upstream[1])),
        asyncio.create_task(_pump(upstream[0], client[1])),
    ]
    _, pending = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
    for pump in pending:
        pump.cancel()
    for outcome in await asyncio.gather(*pumps, return_exceptions=True):
        if isinstance(outcome, Exception):
            raise outcome


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(CHUNK_BYTES):
        sink.write(chunk)
        await sink.drain()


async def _refuse(writer: asyncio.StreamWriter, refused: Refused) -> None:
    LOG.warning("refused (%s): %s", refused.status, refused)
    await _reply(writer, refused.status, str(refused))


async def _reply(writer: asyncio.StreamWriter, status: str, text: str) -> None:
    body = f"{text}\n".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


def server_tls(certificates: Path) -> ssl.SSLContext:
    """TLS with the stack's own certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / CERTIFICATE, certificates / KEY)
    return context


async def serve(port: int, upstream: tuple[str, int], certificates: Path) -> None:
    """Run until cancelled."""
    host, upstream_port = upstream
    proxy = Proxy(upstream_host=host, upstream_port=upstream_port, tls=server_tls(certificates))
    server = await proxy.start(port)
    LOG.info("listening on %s:%d for %s", LOOPBACK, port, ", ".join(HOSTS))
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> None:
    """`python -m include.local_stack.egress --port P --upstream-port P --certificates DIR`."""
    parser = argparse.ArgumentParser(prog="egress", description=main.__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream-host", default=LOOPBACK)
    parser.add_argument("--upstream-port", type=int, required=True)
    parser.add_argument("--certificates", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(serve(options.port, (options.upstream_host, options.upstream_port), options.certificates))


if __name__ == "__main__":
    main(sys.argv[1:])
