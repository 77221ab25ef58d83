"""The hosts a local node may believe to reach, in one tuple: certificate, name resolution and proxy all follow it."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from include.local_stack.certificates import Authority, certificate_pem, is_fresh, key_pem, read
from include.local_stack.settings import LOOPBACK
from include.local_stack.state import write_private

HOSTS = (
    "api.sagemaker.us-east-1.amazonaws.com",
    "runtime.sagemaker.us-east-1.amazonaws.com",
    "bedrock.us-east-1.amazonaws.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "api.openai.com",
    "api.cohere.com",
    "api.cohere.ai",
)
# TEST-NET-3: ML Commons refuses private addresses, this one passes, and the proxy means that nobody contacts it.
PRETENDED_ADDRESS = "203.0.113.10"
# The JVM wants a password on a trust store; the store holds one public certificate.
TRUST_STORE_PASSWORD = "changeit"  # noqa: S105
CERTIFICATE, KEY, TRUST_STORE, HOSTS_FILE = "cert.pem", "key.pem", "trust.p12", "hosts"


def ensure(folder: Path) -> None:
    """Make certificate, key, trust store and hosts file unless valid ones for the same hosts lie there."""
    if _is_valid(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    authority = Authority()
    leaf, key = authority.issue("local stack egress", [x509.DNSName(host) for host in HOSTS])
    write_private(folder / KEY, key_pem(key))
    (folder / TRUST_STORE).write_bytes(trust_store(authority.certificate))
    (folder / HOSTS_FILE).write_text(hosts_file())
    # Last, since it is what _is_valid looks at.
    (folder / CERTIFICATE).write_bytes(certificate_pem(leaf))


def install_in_node(folder: Path, config: Path) -> None:
    """Copy the public parts below the node's config folder, the only one its security manager lets it read."""
    for name in (TRUST_STORE, HOSTS_FILE):
        shutil.copyfile(folder / name, config / name)


def jvm_flags(config: Path, port: int) -> tuple[str, ...]:
    """What sends everything but loopback through the proxy, and makes the node trust only the proxy."""
    return (
        *(f"-D{scheme}.proxyHost={LOOPBACK}" for scheme in ("http", "https")),
        *(f"-D{scheme}.proxyPort={port}" for scheme in ("http", "https")),
        f"-Dhttp.nonProxyHosts={LOOPBACK}|localhost",
        f"-Djdk.net.hosts.file={config / HOSTS_FILE}",
        f"-Djavax.net.ssl.trustStore={config / TRUST_STORE}",
        f"-Djavax.net.ssl.trustStorePassword={TRUST_STORE_PASSWORD}",
    )


def hosts_file() -> str:
    """The names the node can resolve at all."""
    own = (f"{LOOPBACK} localhost", f"{LOOPBACK} {socket.gethostname()}")
    return "".join(f"{line}\n" for line in (*own, *(f"{PRETENDED_ADDRESS} {host}" for host in HOSTS)))


def trust_store(authority: x509.Certificate) -> bytes:
    """A PKCS#12 store that Java reads as trust anchors; no keytool needed."""
    entry = pkcs12.PKCS12Certificate(authority, b"local-stack")
    encryption = serialization.BestAvailableEncryption(TRUST_STORE_PASSWORD.encode())
    return pkcs12.serialize_java_truststore([entry], encryption)


def _is_valid(folder: Path) -> bool:
    if not all((folder / name).exists() for name in (CERTIFICATE, KEY, TRUST_STORE, HOSTS_FILE)):
        return False
    leaf = read(folder / CERTIFICATE)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return is_fresh(leaf) and tuple(names.get_values_for_type(x509.DNSName)) == HOSTS
