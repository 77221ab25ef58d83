"""The options commands share, each with one name, one meaning and one help text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

CLUSTER, DATA, OUTPUT = "The cluster", "The data", "What is shown"

OpenSearchUrl = Annotated[
    str | None,
    typer.Option(envvar="OPENSEARCH_URL", help="The cluster, as https://host:9200.", rich_help_panel=CLUSTER),
]
User = Annotated[
    str | None,
    typer.Option(
        help="Its user; the password comes from OPENSEARCH_PASSWORD, or is asked for.", rich_help_panel=CLUSTER
    ),
]
CaCerts = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="The authority of its certificate.", rich_help_panel=CLUSTER),
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Do not check its certificate.", rich_help_panel=CLUSTER)]
AwsRegion = Annotated[
    str | None,
    typer.Option(help="Sign requests to it with SigV4, for this region.", rich_help_panel=CLUSTER),
]
AwsService = Annotated[
    Literal["es", "aoss"] | None,
    typer.Option(help="The service to sign for: es (the default), or aoss for serverless.", rich_help_panel=CLUSTER),
]
S3Endpoint = Annotated[
    str | None, typer.Option(help="S3 that is not Amazon's, as http://host:9000.", rich_help_panel=DATA)
]
OpenAIBaseUrl = Annotated[
    str | None, typer.Option(help="An API like OpenAI's, as http://host/v1.", rich_help_panel=DATA)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.", rich_help_panel=OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="The traceback of an error, too.", rich_help_panel=OUTPUT)]
