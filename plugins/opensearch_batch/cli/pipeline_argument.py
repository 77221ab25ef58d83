"""The arguments of commands that name a pipeline, or the location of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.pipeline.file import PipelineFile, pipeline_files
from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX, Layout
from opensearch_batch.services.registry import adapter_of

FOLDER = Path("include/pipelines")
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help=f"Pipeline file, or its name in {FOLDER}/.")]
# The DAG that runs `_batch_ingestion` requests.
REQUESTS = "batch_ingestion"
_LOCATION = (
    f"Pipeline file, or its name in {FOLDER}/, or the folder of a pipeline in its work prefix, s3://bucket/prefix/name,"
    f" or {REQUESTS} for the requests in {DEFAULT_WORK_PREFIX}."
)
LayoutArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help=_LOCATION)]
LayoutsArgument = Annotated[
    str | None, typer.Argument(metavar="PIPELINE", help=f"{_LOCATION} Default: all files in {FOLDER}/.")
]
RunArgument = Annotated[str | None, typer.Argument(metavar="RUN", help="Run id, or run key. Default: the newest run.")]


def layout_of(pipeline: str) -> Layout:
    """Return the layout of the files of a pipeline that an argument names."""
    if "://" in pipeline:
        work_prefix, _, name = pipeline.rstrip("/").rpartition("/")
        return Layout(work_prefix, name)
    if pipeline == REQUESTS:
        return Layout(DEFAULT_WORK_PREFIX, REQUESTS)
    file = pipeline_file(pipeline)
    return Layout(file.spec.work_prefix, file.name)


def layouts_of(pipeline: str | None) -> tuple[list[Layout], list[str]]:
    """Return the layout of a pipeline, or of all pipeline files if it is None, and the errors of invalid files."""
    if pipeline is not None:
        return [layout_of(pipeline)], []
    layouts, remarks = list[Layout](), list[str]()
    for path in pipeline_files(FOLDER):
        try:
            layouts.append(layout_of(str(path)))
        except ConfigError as error:
            remarks.append(str(error))
    if not layouts:
        raise ConfigError("; ".join(remarks) or f"{FOLDER}/: no pipeline files; name a pipeline")
    return layouts, remarks


def pipeline_file(pipeline: str) -> PipelineFile:
    """Return the pipeline file of an argument; raise ConfigError if there is none or it has mistakes."""
    path = Path(pipeline)
    if not path.suffix:
        path = FOLDER / f"{path.name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no such pipeline file")
    return PipelineFile(path, adapter_of)
