"""The hosts a local node may believe to reach, in one tuple: certificate, name resolution and proxy all follow it.

The certificate authority's key is never written: it signs one certificate and is forgotten.
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from include.local_stack.settings import LOOPBACK

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
VALID_FOR = dt.timedelta(days=365)
RENEW_BEFORE = dt.timedelta(days=7)


def ensure(folder: Path) -> None:
    """Make certificate, key, trust store and hosts file unless valid ones for the same hosts lie there."""
    if _is_valid(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(authority, authority_key, key)
    _write_private(folder / KEY, _pem(key))
    (folder / TRUST_STORE).write_bytes(trust_store(authority))
    (folder / HOSTS_FILE).write_text(hosts_file())
    # Last, since it is what _is_valid looks at.
    (folder / CERTIFICATE).write_bytes(leaf.public_bytes(serialization.Encoding.PEM))


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
    leaf = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    is_fresh = leaf.not_valid_after_utc - RENEW_BEFORE > dt.datetime.now(dt.UTC)
    return is_fresh and tuple(names.get_values_for_type(x509.DNSName)) == HOSTS


def _authority(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _name("local stack authority")
    usage = _key_usage(key_cert_sign=True)
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    authority: x509.Certificate, authority_key: ec.EllipticCurvePrivateKey, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    return (
        _builder(authority.subject, _name("local stack egress"), key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key_cert_sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + VALID_FOR)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not key_cert_sign,
        key_cert_sign=key_cert_sign,
        crl_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
