"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

CLUSTER, DATA, OUTPUT = "Cluster", "Data", "Output"

OpenSearchUrl = Annotated[
    str | None,
    typer.Option(envvar="OPENSEARCH_URL", help="Cluster URL, like https://host:9200.", rich_help_panel=CLUSTER),
]
User = Annotated[
    str | None,
    typer.Option(help="User; the password is read from OPENSEARCH_PASSWORD, or prompted for.", rich_help_panel=CLUSTER),
]
CaCerts = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="CA certificates that sign the cluster's certificate.",
        rich_help_panel=CLUSTER,
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Do not verify the cluster's certificate.", rich_help_panel=CLUSTER)
]
AwsRegion = Annotated[
    str | None,
    typer.Option(help="Sign requests with SigV4 for this region.", rich_help_panel=CLUSTER),
]
AwsService = Annotated[
    Literal["es", "aoss"] | None,
    typer.Option(help="Service to sign for: es (default), or aoss for OpenSearch Serverless.", rich_help_panel=CLUSTER),
]
S3Endpoint = Annotated[
    str | None, typer.Option(help="URL of an S3-compatible store, like http://host:9000.", rich_help_panel=DATA)
]
OpenAIBaseUrl = Annotated[
    str | None, typer.Option(help="URL of an OpenAI-compatible API, like http://host/v1.", rich_help_panel=DATA)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.", rich_help_panel=OUTPUT)]
