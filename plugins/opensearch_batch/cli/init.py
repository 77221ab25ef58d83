"""init: writes a pipeline file with a test, and an index body, from a file of sample records; contacts no server."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from opensearch_batch.cli.command import Account, Command
from opensearch_batch.core.data_prepper.check import check_pipelines
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.formats.reading import format_of, reader
from opensearch_batch.core.pipeline.dag_id import invalid_reason
from opensearch_batch.core.pipeline.from_sample import DraftSettings, PipelineDraft, draft_pipeline
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.counts import DONE
from opensearch_batch.core.types.rows import Rejected, Row, Source
from opensearch_batch.services.registry import adapter_of, names

FOLDER = Path("include")
SAMPLE_ROWS = 100
REGION = {"region": "us-east-1"}
# Values for the placeholders of the connectors, and the dimension of the model's vectors.
EXAMPLES: dict[str, tuple[dict[str, str], int]] = {
    "openai": ({"model_name": "text-embedding-3-small"}, 1536),
    "cohere": ({"model_name": "embed-english-v3.0"}, 1024),
    "bedrock": (
        {
            **REGION,
            "model_name": "amazon.titan-embed-text-v2:0",
            "job_role_arn": "arn:aws:iam::123456789012:role/batch-inference",
        },
        1024,
    ),
    "sagemaker": ({**REGION, "model_name": "all-MiniLM-L6-v2", "endpoint_name": "all-MiniLM-L6-v2"}, 384),
}


class InitAccount(Account, frozen=True, kw_only=True):
    """The files that were written, and what was derived from the sample: model input, id, fields, skipped paths."""

    files: list[str] = msgspec.field(default_factory=list)
    input: str = ""
    id: str | None = None
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    skipped: list[str] = msgspec.field(default_factory=list)
    records: int = 0


class Init(Command[InitAccount]):
    """Write a first version of a pipeline, its test and an index body, from sample records.

    Example: opensearch-batch init books --sample books.jsonl
    """

    def __init__(
        self,
        *,
        name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the pipeline and of its DAG.")],
        sample: Annotated[
            Path,
            typer.Option(
                exists=True, dir_okay=False, help="Records as JSON Lines, JSON, CSV or Parquet; may be compressed."
            ),
        ],
        service: Annotated[str, typer.Option(help="The AI service.")] = "openai",
        dimension: Annotated[int | None, typer.Option(min=1, help="Dimension of the model's vectors.")] = None,
        input_path: Annotated[
            str | None,
            typer.Option("--input", help="JSONPath of the model's input, like $.text. Default: the longest text."),
        ] = None,
        source: Annotated[
            str | None, typer.Option(help="S3 URI of the documents. Default: s3://documents/NAME/.")
        ] = None,
        work_prefix: Annotated[
            str, typer.Option(help="S3 prefix for all files that the pipeline writes.")
        ] = "s3://opensearch-batch",
        folder: Annotated[
            Path, typer.Option(file_okay=False, help="Folder that contains pipelines/ and indexes/.")
        ] = FOLDER,
    ) -> None:
        super().__init__(InitAccount())
        values, known_dimension = EXAMPLES.get(service, ({}, 0))
        self._settings = DraftSettings(
            name=name,
            source=source or f"s3://documents/{name}/",
            work_prefix=work_prefix,
            service=service,
            values=values,
            dimension=dimension or known_dimension,
            input=input_path,
        )
        self._sample = sample
        self._folder = folder

    def execute(self) -> None:
        settings = self._settings
        if (reason := invalid_reason(settings.name)) is not None:
            raise ConfigError(f"NAME: {settings.name!r} is not a valid DAG id: {reason}")
        if settings.service not in names():
            raise ConfigError(f"--service: no service {settings.service!r}; known: {', '.join(names())}")
        if not settings.dimension:
            raise ConfigError("--dimension: set the dimension of the model's vectors")
        pipeline = self._folder / "pipelines" / f"{settings.name}.yaml"
        index_body = self._folder / "indexes" / f"{settings.name}.json"
        for path in (pipeline, index_body):
            if path.exists():
                raise ConfigError(f"{path} already exists; remove it, or choose another name")
        records = _records(self._sample)
        draft = draft_pipeline(records, settings)
        _write(pipeline, draft.pipeline)
        _write(index_body, draft.index_body)
        self._update_account(draft, [pipeline, index_body], len(records))
        (checked,) = check_pipelines([pipeline], adapter_of, None)
        if checked.mistakes:
            raise ConfigError(
                f"{pipeline} and {index_body} were written, but have mistakes: {'; '.join(checked.mistakes)}"
            )

    def _update_account(self, draft: PipelineDraft, files: list[Path], records: int) -> None:
        self.update(
            state=DONE,
            files=[str(file) for file in files],
            input=draft.input,
            id=draft.id,
            fields=draft.fields,
            skipped=draft.skipped,
            records=records,
        )

    def show(self, console: Console) -> None:
        account, settings = self.account, self._settings
        console.print(f"{account.records} records of {self._sample} read; written:")
        for file in account.files:
            console.print(f"  {file}")
        console.print(
            f"model input {account.input}; document id {account.id or 'derived from the origin of each record'}"
        )
        if account.skipped:
            console.print(f"skipped: {', '.join(account.skipped)} (mixed, nested or empty values)")
        pipeline = account.files[0]
        console.print("next:")
        console.print(f"  review and edit {pipeline}, then: opensearch-batch check {pipeline}")
        console.print(f"  upload your documents to {settings.source}, then trigger the DAG {settings.name} in Airflow")
        console.print(f'  opensearch-batch search {pipeline} "a question"')


def _records(sample: Path) -> list[dict[str, Any]]:
    """Return the first records of a sample; raise ConfigError if no row of the sample is a JSON object."""
    uri, objects = str(sample), LocalFiles()
    item = objects.head(uri)
    if item is None:
        raise ConfigError(f"{uri}: no such file")
    rows = list(islice(reader(format_of(uri, None))(objects, 0, Source(uri, (item,))), SAMPLE_ROWS))
    decoded = [msgspec.json.decode(row.content) for row in rows if isinstance(row, Row)]
    if records := [record for record in decoded if isinstance(record, dict)]:
        return records
    reason = next((row.reason for row in rows if isinstance(row, Rejected)), "it is empty")
    raise ConfigError(f"{uri}: no record in the sample ({reason}); give JSON Lines, JSON, CSV or Parquet")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
