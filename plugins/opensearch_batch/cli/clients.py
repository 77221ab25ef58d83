"""Creates clients from options, environment variables and the request's `credential`.

No option contains a secret, because every user of a machine can read the command lines of its processes.
"""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from opensearch_batch.cli.command import A, Command
from opensearch_batch.cli.secrets import Secrets
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import Credential
from opensearch_batch.core.opensearch import client as clients
from opensearch_batch.core.opensearch.client import Signing, Tls, address_of
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.by_uri import LOCAL, Scheme, Stores
from opensearch_batch.core.storage.cached_reads import CachedReader
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.s3_client import s3_client
from opensearch_batch.services.openai import openai_api
from opensearch_batch.services.registry import stores

if TYPE_CHECKING:
    from opensearch_batch.core.storage.objects import Objects

CLUSTER, DATA = "Cluster", "Data"
PASSWORD = "OPENSEARCH_PASSWORD"  # noqa: S105 - the variable's name
INSTEAD_OF_PASSWORD = f"set {PASSWORD} in the environment, and pass --user NAME --opensearch-url https://host:9200"


class ClientFactory(msgspec.Struct, frozen=True):
    """Creates the clients of one command; the fields are the command's options."""

    opensearch_url: Annotated[
        str | None,
        typer.Option(
            envvar="OPENSEARCH_URL",
            help="URLs of the cluster's nodes, like https://a:9200,https://b:9200.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    user: Annotated[
        str | None,
        typer.Option(help=f"User; the password is read from {PASSWORD}, or prompted for.", rich_help_panel=CLUSTER),
    ] = None
    ca_certs: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="CA certificates that sign the cluster's certificate.",
            rich_help_panel=CLUSTER,
        ),
    ] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not verify the cluster's certificate.", rich_help_panel=CLUSTER)
    ] = False
    aws_region: Annotated[
        str | None, typer.Option(help="Sign requests with SigV4 for this region.", rich_help_panel=CLUSTER)
    ] = None
    aws_service: Annotated[
        Literal["es", "aoss"] | None,
        typer.Option(
            help="Service to sign for: es (default), or aoss for OpenSearch Serverless.", rich_help_panel=CLUSTER
        ),
    ] = None
    s3_endpoint: Annotated[
        str | None, typer.Option(help="URL of an S3-compatible store, like http://host:9000.", rich_help_panel=DATA)
    ] = None
    openai_base_url: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible API, like http://host/v1.", rich_help_panel=DATA)
    ] = None

    def cluster(self, secrets: Secrets) -> Cluster:
        """Return the cluster; raise ConfigError for a missing or invalid URL or credential."""
        if not self.opensearch_url:
            raise ConfigError("no cluster; pass --opensearch-url or set OPENSEARCH_URL")
        option, url = "--opensearch-url", self.opensearch_url
        nodes = [_without_password(option, node, INSTEAD_OF_PASSWORD) for node in url.split(",")]
        signing = self._signing()
        client = clients.opensearch_client(
            address_of(*nodes),
            user=self.user,
            password=self._password(secrets) if self.user else None,
            signing=signing,
            tls=Tls(str(self.ca_certs) if self.ca_certs else None, verify=not self.insecure),
        )
        return Cluster(client, url)

    def stores(self, credential: Credential | None = None) -> Stores:
        """Return the stores of sources and results; each client is created on first use.

        Raise ConfigError if a URL contains a password or is invalid, even a URL from which nothing is read.
        """
        keys = credential or Credential()
        s3_keys = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        s3_url = self.s3_endpoint and _without_password("--s3-endpoint", self.s3_endpoint, s3_keys)
        openai_url = self.openai_base_url and _without_password(
            "--openai-base-url", self.openai_base_url, "set OPENAI_API_KEY in the environment"
        )
        schemes = {"s3": Scheme(lambda: _s3(keys, s3_url)), LOCAL: Scheme(LocalFiles)}
        # OpenAI is the only AI service whose key a request can contain.
        return stores(schemes, lambda _: openai_api(keys.openai_key, openai_url), services=["openai"])

    def as_arguments(self) -> list[str]:
        """Return the command-line options that recreate these clients; none of them contains a secret."""
        arguments: list[str] = []
        for name, value in msgspec.structs.asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if value is True:
                arguments.append(option)
            elif value:
                arguments += [option, str(value)]
        return arguments

    def _password(self, secrets: Secrets) -> str:
        password = os.environ.get(PASSWORD)
        if password is None and sys.stdin.isatty():
            password = getpass.getpass(f"Password of {self.user} at {self.opensearch_url}: ", stream=sys.stderr)
        if not password:
            raise ConfigError(f"no password for --user {self.user}; set {PASSWORD}")
        return secrets.keep(password)

    def _signing(self) -> Signing | None:
        if not (self.aws_region or self.aws_service):
            return None
        if self.user:
            raise ConfigError("--user means basic authentication, and --aws-region SigV4; use one of them")
        return clients.aws_signing(self.aws_region, self.aws_service or "es")


class ClientCommand(Command[A]):
    """A command that uses clients; it hides secrets in its output."""

    def __init__(self, account: A, clients: ClientFactory) -> None:
        super().__init__(account)
        self._clients = clients

    def _stores(self, credential: Credential | None) -> Stores:
        self.secrets.keep_credential(credential)
        return self._clients.stores(credential)

    def _reader(self) -> CachedReader:
        return CachedReader(self._stores(None))

    def _cluster(self) -> Cluster:
        return self._clients.cluster(self.secrets)


def _s3(keys: Credential, endpoint: str | None) -> Objects:
    from opensearch_batch.core.storage.s3 import S3Objects

    client: Any = s3_client(
        endpoint=endpoint,
        region=keys.region,
        access_key=keys.access_key,
        secret_key=keys.secret_key,
        session_token=keys.token,
    )
    return S3Objects(client)


def _without_password(option: str, url: str, instead: str) -> str:
    """Return a URL that contains no password; raise ConfigError if it does, or is not a server URL."""
    try:
        address_of(url)
    except ConfigError as error:
        raise ConfigError(f"{option}: {error}" + (f"; instead, {instead}" if "@" in url else "")) from None
    return url
