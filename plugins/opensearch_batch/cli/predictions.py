"""predictions: exports the vectors of a pipeline's documents from the prediction store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Console

from opensearch_batch.cli.clients import ClientCommand, ClientFactory
from opensearch_batch.cli.command import DIFFERENT, Account, Command, typer_command
from opensearch_batch.cli.pipeline_argument import PipelineArgument, pipeline_file
from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.ingest.prediction_map import output_paths
from opensearch_batch.core.opensearch.cluster import vector_fields
from opensearch_batch.core.pipeline.check import job_parameters
from opensearch_batch.core.pipeline.file import PipelineFile
from opensearch_batch.core.runs.ledger_check import Heads, read_heads
from opensearch_batch.core.runs.stored_vectors import VectorColumn, vector_columns
from opensearch_batch.core.runs.vector_export import VectorExport
from opensearch_batch.core.storage.json_document import JsonDocument
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.counts import DONE
from opensearch_batch.core.types.manifest import Manifest
from opensearch_batch.services.registry import adapter_of

predictions = typer.Typer(help="Export the predictions of a pipeline.", no_args_is_help=True)


class ExportAccount(Account, frozen=True, kw_only=True):
    """Result of an export; the counts are those of `Exported`."""

    location: str = ""
    index: str = ""
    columns: Sequence[str] = ()
    documents: int = 0
    without_vector: int = 0
    superseded: int = 0
    files: int = 0


class Export(ClientCommand[ExportAccount]):
    """Exports the vectors of a pipeline's documents."""

    def __init__(self, pipeline: str, location: str, clients: ClientFactory) -> None:
        super().__init__(ExportAccount(location=f"{location.rstrip('/')}/"), clients)
        self._pipeline = pipeline
        self._has_cluster = bool(clients.opensearch_url)

    def execute(self) -> None:
        file = pipeline_file(self._pipeline)
        spec = file.spec
        objects, layout, index = self._stores(None), Layout(spec.work_prefix, file.name), spec.ingest.index
        heads = self._heads(objects, layout, index)
        columns = _columns(file, objects, layout, heads)
        self.update(index=index, columns=[column.name for column in columns])
        store = layout.predictions(shared=spec.batch_predict.predictions == "shared")
        export = VectorExport(objects, heads, store, columns, has_routing=spec.ingest.routing is not None)
        done = export.run(file.name, index, self.account.location)
        counts = {name: getattr(done, name) for name in done.__struct_fields__}
        self.update(state=DIFFERENT if done.without_vector else DONE, **counts)

    def _heads(self, objects: Objects, layout: Layout, index: str) -> Heads:
        """Return the heads of the scopes that have documents in the index."""
        heads, unreadable = read_heads(objects, layout)
        if unreadable:
            raise FatalError("; ".join(unreadable))
        heads = {scope: head for scope, head in heads.items() if head.index == index and head.objects}
        if not heads:
            raise ConfigError(f"{layout.scopes()}: no run of the pipeline has committed documents of index {index}")
        if self._has_cluster:
            current = self._cluster().index(index)
            return {scope: head for scope, head in heads.items() if current and head.index_uuid == current.uuid}
        if len({head.index_uuid for head in heads.values()}) > 1:
            raise ConfigError(
                f"index {index} was created again, and not all scopes were written to it since; pass --opensearch-url, "
                "to export those that are in it"
            )
        return heads

    def show(self, console: Console) -> None:
        """Print the counts, and what is missing."""
        account = self.account
        console.print(f"{account.location}: {account.state} in {account.seconds:.1f} s")
        console.print(f"{account.documents:,} documents in {account.files:,} files: {', '.join(account.columns)}")
        if account.superseded:
            console.print(
                f"- {account.superseded:,} documents of older scopes, which newer ones have replaced, left out"
            )
        if account.without_vector:
            console.print(
                f"- {account.without_vector:,} documents without a vector, because the prediction store has none"
            )


def _columns(file: PipelineFile, objects: Objects, layout: Layout, heads: Heads) -> list[VectorColumn]:
    """Return the columns of the vector fields: those of the index body, else those that the last run found."""
    spec = file.spec
    adapter = adapter_of(spec.batch_predict.service)
    if spec.ingest.processors is not None:
        raise ConfigError("ingest.processors may change vectors, so only pipelines with a field_map can be exported")
    paths = output_paths(
        spec.request, adapter, job_parameters(file, adapter, spec.batch_predict), spec.batch_predict.inputs
    )
    body = file.body("ingest", "index_body")
    fields = vector_fields((body or {}).get("mappings", {}))
    manifests = (JsonDocument(objects, layout.manifest(head.claim.run_key), Manifest).read() for head in heads.values())
    fields = fields or next((tuple(manifest.vectors) for manifest in manifests if manifest is not None), ())
    columns = vector_columns(paths, fields, keeps_digits=spec.batch_predict.predictions == "shared")
    if not columns:
        raise ConfigError(f"{file.path}: no vector field of the index is mapped to a prediction; set ingest.index_body")
    return columns


@predictions.command("export")
@typer_command
def export_predictions(
    *,
    pipeline: PipelineArgument,
    to: Annotated[str, typer.Option("--to", metavar="LOCATION", help="Empty folder: s3://bucket/prefix/, or a path.")],
    clients: ClientFactory,
) -> Command[ExportAccount]:
    """Export ids and vectors of a pipeline's documents as one Parquet data set.

    Example: opensearch-batch predictions export books --to s3://bucket/exports/books/
    """
    return Export(pipeline, to, clients)
