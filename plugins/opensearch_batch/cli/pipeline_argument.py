"""The argument of a command that names a pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.services.registry import adapter_of

FOLDER = Path("include/pipelines")
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help=f"Pipeline file, or its name in {FOLDER}/.")]


def pipeline_file(pipeline: str) -> PipelineFile:
    """Return the pipeline file of an argument; raise ConfigError if there is none or it has mistakes."""
    path = Path(pipeline)
    if not path.suffix:
        path = FOLDER / f"{path.name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such pipeline file")
    return PipelineFile(path, adapter_of)
