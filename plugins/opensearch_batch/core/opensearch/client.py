"""Creates opensearch-py clients, for Airflow connections and the command line."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from opensearch_batch.core.errors import ConfigError

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from opensearchpy import OpenSearch

TIMEOUT_S = 30
# Covers concurrent bulk requests and the calls of other threads.
POOL_SIZE = 16
HTTPS_PORT, NODE_PORT = 443, 9200
# How long a node that did not answer gets no request. opensearch-py's default of one minute, doubled with each failure,
# is longer than a rolling restart takes to reach the next node.
SKIPPED_S = 10
_WITH_PORT = re.compile(r"(\[.+\]|[^:]+):(\d+)")


class Address(msgspec.Struct, frozen=True):
    """The address of a cluster; the default port is 443 with TLS, else 9200.

    `host` may name several nodes of the cluster, separated by commas, each with a port of its own: ``a,b:9201``.
    """

    host: str
    port: int | None = None
    use_ssl: bool = False
    url_prefix: str = ""

    def nodes(self) -> list[dict[str, Any]]:
        """Return host and port of each node."""
        default = self.port or (HTTPS_PORT if self.use_ssl else NODE_PORT)
        nodes = []
        for name in filter(None, map(str.strip, self.host.split(","))):
            own = _WITH_PORT.fullmatch(name)
            host, port = (own[1], int(own[2])) if own else (name, default)
            # opensearch-py writes the brackets of an IPv6 address.
            nodes.append({"host": host.strip("[]"), "port": port})
        return nodes


class Tls(msgspec.Struct, frozen=True):
    """How to verify a cluster's certificate: with the CA file `ca_certs`, or None for the system's CAs.

    With `assert_hostname` False, the certificate's name may differ from the host name.
    """

    ca_certs: str | None = None
    verify: bool = True
    assert_hostname: bool | None = None


class Signing(msgspec.Struct, frozen=True):
    """Parameters of SigV4 signing: `service` is ``es``, or ``aoss`` for a serverless collection."""

    credentials: Any
    region: str
    service: str = "es"

    def __repr__(self) -> str:
        """Omit the credentials."""
        return f"Signing({self.region}, {self.service})"


def address_of(*urls: str) -> Address:
    """Return the address in the URLs of a cluster's nodes.

    Raise ConfigError if they differ in scheme or path, and, without quoting them, for other schemes or credentials.
    """
    first, *others = nodes = [_node_address(url) for url in urls]
    if not others:
        return first
    if any((each.use_ssl, each.url_prefix) != (first.use_ssl, first.url_prefix) for each in others):
        raise ConfigError("the nodes of a cluster have the same scheme and the same path; correct their URLs")
    ports = {True: HTTPS_PORT, False: NODE_PORT}
    names = (f"[{each.host}]" if ":" in each.host else each.host for each in nodes)
    hosts = (f"{name}:{each.port or ports[each.use_ssl]}" for name, each in zip(names, nodes, strict=True))
    return msgspec.structs.replace(first, host=",".join(hosts), port=None)


def _node_address(url: str) -> Address:
    # Any @ is refused: urlsplit finds no user in a URL without a scheme or with a / in the password.
    if "@" in url:
        raise ConfigError("the URL contains a user or password, which all users of this machine can see in `ps`")
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError("the URL's host or port cannot be read; write it as https://host:9200") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is not the address of a server; write it as https://host:9200")
    return Address(parts.hostname, port, parts.scheme == "https", parts.path.strip("/"))


def opensearch_client(
    address: Address,
    *,
    user: str | None = None,
    password: str | None = None,
    signing: Signing | None = None,
    tls: Tls | None = None,
) -> OpenSearch:
    """Return an opensearch-py client that does not retry; raise ConfigError if the CA file does not exist.

    With several nodes, each thread sends its requests to them in turn.
    """
    from opensearchpy import OpenSearch, Urllib3HttpConnection

    # By default, opensearch-py logs every request.
    logging.getLogger("opensearch").setLevel(logging.ERROR)
    return OpenSearch(
        hosts=address.nodes(),
        dead_timeout=SKIPPED_S,
        timeout_cutoff=0,
        use_ssl=address.use_ssl,
        url_prefix=address.url_prefix,
        timeout=TIMEOUT_S,
        max_retries=0,
        pool_maxsize=POOL_SIZE,
        # With `requests`, the environment variable REQUESTS_CA_BUNDLE would override ca_certs.
        connection_class=Urllib3HttpConnection,
        **(_tls(tls or Tls()) if address.use_ssl else {}),
        **_auth(user, password, signing),
    )


def aws_signing(region: str | None, service: str) -> Signing:
    """Return `Signing` with boto3's default credentials; raise ConfigError without credentials or region."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        session = boto3.Session(region_name=region)
        credentials: Credentials | None = session.get_credentials()
    except BotoCoreError as error:
        raise ConfigError(f"no AWS credentials ({error}); correct AWS_PROFILE or your AWS configuration") from error
    if credentials is None:
        raise ConfigError("no AWS credentials to sign with; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if not session.region_name:
        raise ConfigError("no AWS region to sign for; give the region of the OpenSearch service")
    return Signing(credentials, session.region_name, service)


def _tls(tls: Tls) -> dict[str, Any]:
    if tls.ca_certs and not Path(tls.ca_certs).is_file():
        raise ConfigError(f"ca_certs {tls.ca_certs} is not a file")
    options = {"verify_certs": tls.verify, "ca_certs": tls.ca_certs, "ssl_show_warn": tls.verify}
    if tls.assert_hostname is not None:
        options["ssl_assert_hostname"] = tls.assert_hostname
    return options


def _auth(user: str | None, password: str | None, signing: Signing | None) -> dict[str, Any]:
    if signing is not None:
        from opensearchpy import Urllib3AWSV4SignerAuth

        return {"http_auth": Urllib3AWSV4SignerAuth(signing.credentials, signing.region, signing.service)}
    return {"http_auth": (user, password or "")} if user else {}
