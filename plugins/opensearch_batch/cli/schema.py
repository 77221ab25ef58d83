"""schema: prints the JSON Schema of pipeline files, or their reference page."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from opensearch_batch.core.pipeline.spec_reference import page
from opensearch_batch.core.pipeline.spec_reference import schema as pipeline_schema
from opensearch_batch.services.registry import names


def schema(
    *, markdown: Annotated[bool, typer.Option("--markdown", help="Print the reference page instead.")] = False
) -> int:
    """Print the JSON Schema of pipeline files."""
    text = (
        page(names())
        if markdown
        else msgspec.json.format(msgspec.json.encode(pipeline_schema(names())), indent=1).decode()
    )
    typer.echo(text, nl=not text.endswith("\n"))
    return 0
