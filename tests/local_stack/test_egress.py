"""The proxy ends TLS for the hosts of the AI services and sends everybody else away."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from include.local_stack import egress_certificates
from include.local_stack.egress import Proxy, Refused, server_tls, target_of
from include.local_stack.egress_certificates import HOSTS, TRUST_STORE_PASSWORD
from tests.waiting import WAIT_S


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Fresh certificates."""
    egress_certificates.ensure(tmp_path)
    return tmp_path


def authority(folder: Path) -> x509.Certificate:
    """The authority as the JVM finds it in its trust store."""
    store = pkcs12.load_pkcs12((folder / "trust.p12").read_bytes(), TRUST_STORE_PASSWORD.encode())
    (entry,) = store.additional_certs
    return entry.certificate


def test_the_trust_store_holds_the_authority_alone(certificates: Path) -> None:
    """The node trusts the proxy and nobody on the internet; the certificate covers every host of the list."""
    leaf = x509.load_pem_x509_certificate((certificates / "cert.pem").read_bytes())
    leaf.verify_directly_issued_by(authority(certificates))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == HOSTS


def test_the_key_is_private_and_the_authoritys_key_is_nowhere(certificates: Path) -> None:
    """Nobody can sign another certificate for these hosts."""
    assert (certificates / "key.pem").stat().st_mode & 0o777 == 0o600
    assert {entry.name for entry in certificates.iterdir()} == {"cert.pem", "key.pem", "trust.p12", "hosts"}


def test_certificates_are_kept_while_they_are_valid(certificates: Path) -> None:
    """A node that runs goes on trusting; only other hosts make new ones."""
    before = (certificates / "cert.pem").read_bytes()
    egress_certificates.ensure(certificates)
    assert (certificates / "cert.pem").read_bytes() == before


def test_hosts_file_and_flags_name_the_same_hosts(certificates: Path) -> None:
    """Every host resolves to an address that is never contacted, and the JVM knows the way."""
    lines = (certificates / "hosts").read_text().splitlines()
    assert {f"203.0.113.10 {host}" for host in HOSTS} <= set(lines)
    flags = egress_certificates.jvm_flags(certificates, 9401)
    assert f"-Djdk.net.hosts.file={certificates / 'hosts'}" in flags
    assert "-Dhttps.proxyPort=9401" in flags


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("CONNECT example.com:443 HTTP/1.1", "502"),
        ("CONNECT api.openai.com:22 HTTP/1.1", "502"),
        ("CONNECT api.openai.com HTTP/1.1", "502"),
        ("GET http://api.openai.com/ HTTP/1.1", "501"),
        ("", "501"),
    ],
)
def test_other_targets_are_refused(line: str, status: str) -> None:
    """Neither other hosts nor other ports nor other methods pass."""
    with pytest.raises(Refused, match=r"only CONNECT is spoken|is not a host of the local AI services") as refused:
        target_of(f"{line}\r\n\r\n".encode())
    assert refused.value.status.startswith(status)


def test_https_ends_here_and_arrives_as_plain_http(certificates: Path) -> None:
    """A client that trusts the authority speaks TLS to a public name; the AI services see its bytes."""

    async def talk(proxy_port: int) -> bytes:
        reader, writer = await _connect(proxy_port, "api.openai.com:443")
        tls = ssl.create_default_context(cadata=authority(certificates).public_bytes(Encoding.PEM).decode())
        await writer.start_tls(tls, server_hostname="api.openai.com")
        return await _echo(reader, writer)

    assert asyncio.run(_with_proxy(certificates, talk)) == b"HELLO"


def test_plain_http_is_pumped(certificates: Path) -> None:
    """Port 80 passes without TLS."""

    async def talk(proxy_port: int) -> bytes:
        return await _echo(*await _connect(proxy_port, "api.openai.com:80"))

    assert asyncio.run(_with_proxy(certificates, talk)) == b"HELLO"


def test_a_stranger_gets_502_and_no_tunnel(certificates: Path) -> None:
    """The answer says why."""

    async def talk(proxy_port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port)
        writer.write(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        await _close(writer)
        return answer

    answer = asyncio.run(_with_proxy(certificates, talk))
    assert answer.startswith(b"HTTP/1.1 502")
    assert b"example.com:443 is not a host of the local AI services" in answer


def test_without_ai_services_the_client_is_told(certificates: Path) -> None:
    """The proxy itself is healthy, the tunnel is refused."""

    async def talk(proxy_port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy_port)
        writer.write(b"CONNECT api.openai.com:443 HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        await _close(writer)
        return answer

    assert b"do not answer" in asyncio.run(_with_proxy(certificates, talk, has_upstream=False))


async def _with_proxy(
    certificates: Path, talk: Callable[[int], Awaitable[bytes]], *, has_upstream: bool = True
) -> bytes:
    """Run a conversation through a proxy to a server that answers in capitals."""
    upstream = await asyncio.start_server(_shout, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    if not has_upstream:
        upstream.close()
        await upstream.wait_closed()
    proxy = await Proxy(upstream_port=port, tls=server_tls(certificates)).start(0)
    async with upstream, proxy:
        answer = await talk(proxy.sockets[0].getsockname()[1])
        # The conversation is over: what still runs are the handlers that close their ends.
        if handlers := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(handlers, timeout=WAIT_S)
        return answer


async def _shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(100):
        writer.write(chunk.upper())
        await writer.drain()
    await _close(writer)


async def _connect(port: int, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    assert b"200" in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"hello")
    answer = await reader.readexactly(5)
    await _close(writer)
    return answer


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()
