"""What a pipeline file may say: these types are its single source.

The reader, its hints, the JSON Schema and the reference page are made of them. A description says what a value
means, an example what one looks like.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from opensearch_batch.core.ingest.bulk import MAX_BODY_BYTES, MAX_IN_FLIGHT, OpType
from opensearch_batch.core.ingest.request import LoadSettings, OnUnmatched
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.types.formats import Format

Path = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
S3_PREFIX = "^s3://[^/]"


def about(text: str, example: Any = None) -> Meta:  # noqa: ANN401 - any YAML
    """Describe a key: `example` is what a message shows when it was written wrongly."""
    return Meta(description=text, examples=None if example is None else [example])


class SpecStruct(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a pipeline file."""


class NewObjects(SpecStruct, frozen=True):
    """Runs when objects come to the source, or change there."""

    poll_every_s: Annotated[
        Seconds, about("How often the source is listed; without events, a change is seen that late.", 60)
    ] = 60.0
    sqs: Annotated[
        str | None,
        about(
            "The URL of the SQS queue that gets the bucket's events; the source is not listed then.",
            "https://sqs.us-east-1.amazonaws.com/123456789012/documents",
        ),
    ] = None


class Schedule(SpecStruct, frozen=True):
    """When the pipeline runs by itself; one of `cron`, `partitions`, `assets` and `new_objects`."""

    cron: Annotated[str | None, about("A cron expression or a preset; the run has a date, `{{ ds }}`.", "@daily")] = (
        None
    )
    partitions: Annotated[
        str | None,
        about("A cron expression; the run has a partition, `{{ partition_key }}`.", "0 2 * * *"),
    ] = None
    key_format: Annotated[str, about("How a partition's key is made of its date (strftime).", "%Y-%m-%d")] = "%Y-%m-%d"
    timezone: Annotated[str, about("Where the clock of `cron` and `partitions` hangs.", "Europe/Vienna")] = "UTC"
    assets: Annotated[
        list[str],
        about(
            "Assets of other DAGs, by URI; a run starts when all have news.",
            ["x-opensearch://opensearch_default/books"],
        ),
    ] = []
    new_objects: Annotated[NewObjects | None, about("A run for new objects at the source.", {"poll_every_s": 60})] = (
        None
    )


class SourceSpec(SpecStruct, frozen=True):
    """Where the documents are."""

    uri: Annotated[
        str,
        about(
            "An S3 prefix, or one object. `{{ ds }}` is the date of the run, `{{ ds_nodash }}` the same without "
            "hyphens, `{{ partition_key }}` its partition.",
            "s3://documents/dt={{ ds }}/",
        ),
    ]
    include: Annotated[
        list[str],
        about(
            "Globs; a name below the prefix must match one. `*` and `?` do not cross a `/`, `**` does; a glob without "
            "`/` matches in every folder.",
            ["*.jsonl", "*.jsonl.gz"],
        ),
    ] = []
    exclude: Annotated[list[str], about("Globs that a name must not match.", ["*.tmp"])] = []
    format: Annotated[
        Format | None,
        about(
            "`jsonl`: a JSON object a line. `json`: an object holds one JSON object, or an array of them. `csv`: with "
            "a header; all values are texts. `parquet`. If not said, the name's ending tells, else `jsonl`. Any may be "
            "compressed: `.gz`, `.zst`.",
            "csv",
        ),
    ] = None
    prepare: Annotated[
        bool,
        about("`false`: the objects are service-ready inputs; each is one job, sent as it is, where it is."),
    ] = True
    on_empty: Annotated[
        Literal["fail", "skip"], about("What a run does when nothing is there: a partition may have no documents.")
    ] = "fail"


class ModelOf(SpecStruct, frozen=True):
    """Which model of a service predicts; one of `model_id`, `stack` and `connector`."""

    model_id: Annotated[str | None, about("A model registered with ML Commons.", "2CkEl5MBZ-PyHUSg2ZGD")] = None
    stack: Annotated[str | None, about("A CloudFormation stack that made the model.", "opensearch-sagemaker")] = None
    connector: Annotated[
        str | None,
        about("A file of `include/connectors/`; connector and model are made of it if missing.", "sagemaker"),
    ] = None
    values: Annotated[
        dict[str, str], about("What fills the connector's `<placeholders>`.", {"model_name": "all-MiniLM-L6-v2"})
    ] = {}
    parameters: Annotated[dict[str, Any], about("Override the connector's parameters in each job.")] = {}


class BatchPredict(ModelOf, frozen=True, kw_only=True):
    """Which model predicts, from which paths of a record, and how a job of it is submitted and watched."""

    service: Annotated[str, about("The AI service: `sagemaker`, `bedrock`, `openai` or `cohere`.", "sagemaker")]
    input: Annotated[
        Path | list[Path] | None,
        about("The path in a record that the model reads; a list of them gives one prediction each.", "$.text"),
    ] = None
    instead: Annotated[
        dict[str, ModelOf],
        about(
            "Other services that the form may choose, each with its model.",
            {"openai": {"connector": "openai", "values": {"model_name": "text-embedding-3-small"}}},
        ),
    ] = {}
    dimension: Annotated[
        Count | None,
        about("The length of the model's vectors, checked against the index before anything is paid.", 384),
    ] = None
    max_jobs_in_flight: Annotated[
        Count | None, about("At most so many jobs of pipeline and model at once, over all runs.", 10)
    ] = None
    retry_time_window_s: Annotated[Seconds, about("How long a service may say not now.")] = 600.0
    retry_interval_s: Annotated[Seconds, about("How often it is asked again.")] = 60.0
    repair_rounds: Annotated[
        Annotated[int, Meta(ge=0)], about("How often records that failed are sent again, in smaller jobs.")
    ] = 2
    poll_every_s: Annotated[Seconds, about("The first interval of looking at a job; it grows with the job's age.")] = (
        30.0
    )
    poll_at_most_s: Annotated[Seconds, about("The longest interval.")] = 300.0
    deadline_s: Annotated[
        Seconds | None, about("A job that takes longer is cancelled; counted from its submission.", 86400)
    ] = None

    @property
    def inputs(self) -> list[str]:
        """The paths the model reads, as a list."""
        if self.input is None:
            return []
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def models(self) -> dict[str, ModelOf]:
        """The model of each service the pipeline may use, its own first."""
        return {self.service: self, **self.instead}


class ShardSize(SpecStruct, frozen=True):
    """Where shards are cut; the service's own limits hold too."""

    max_records: Annotated[Count, about("Records of a shard, which is one job.", 10_000)] = 10_000
    max_bytes: Annotated[Count, about("Bytes of a shard.", 100_000_000)] = 100_000_000


class IngestSpec(SpecStruct, frozen=True):
    """The index, and what goes into it."""

    index: Annotated[str, about("The index.", "passages")]
    field_map: Annotated[
        dict[str, Any],
        about(
            "Field of the index: path in a record (`$.title`), `prediction` or `prediction[1]`, or a path in the "
            "service's own rows (`$.SageMakerOutput[0]`).",
            {"title": "$.title", "embedding": "prediction"},
        ),
    ] = {}
    processors: Annotated[
        list[dict[str, Any]] | None,
        about(
            "Data Prepper's processors in place of `field_map`: what they make of the service's row, which holds its "
            "record, is the document; `[]` takes it as it is.",
            [{"copy_values": {"entries": [{"from_key": "/SageMakerOutput", "to_key": "embedding"}]}}],
        ),
    ] = None
    when: Annotated[
        str | None,
        about(
            "Beside `processors`, a condition of Data Prepper's: a row for which it does not hold when they are done "
            "is not written, and counted as unrouted.",
            "/title != null",
        ),
    ] = None
    ingest_fields: Annotated[list[str], about("Paths kept under their own last name.", ["$.title"])] = []
    index_body: Annotated[
        str | None, about("A file of `include/indexes/`: makes the index if it is absent.", "passages")
    ] = None
    op_type: Annotated[
        OpType,
        about("`index` replaces a document, `create` leaves one that is there, `upsert` adds to it."),
    ] = "index"
    on_missing: Annotated[
        OnMissing | dict[str, OnMissing | None] | None,
        about(
            "What a mapped path does that a record lacks: `null`, `omit` or `dead_letter`, for all fields or by field "
            "name, `*` for the others. If not said, a missing vector is a dead letter and anything else null.",
            {"embedding": "dead_letter", "*": "omit"},
        ),
    ] = None
    on_unmatched: Annotated[
        OnUnmatched, about("What a record without a prediction becomes: a dead letter, or a document without it.")
    ] = "dead_letter"
    ingest_pipeline: Annotated[str | None, about("An ingest pipeline of the cluster.", "add-date")] = None
    routing: Annotated[str | None, about("The path of a document's routing value.", "$.tenant")] = None
    load: Annotated[
        LoadSettings | None,
        about("Index settings during the load, given back afterwards.", {"number_of_replicas": 0}),
    ] = None
    dead_letters: Annotated[
        Annotated[str, Meta(pattern=S3_PREFIX)] | None,
        about("Where records go that could not be done; below `work` if not said.", "s3://dead-letters/passages/"),
    ] = None
    max_body_bytes: Annotated[Count, about("Bytes of one bulk request.")] = MAX_BODY_BYTES
    max_in_flight: Annotated[Count, about("Bulk requests at once.")] = MAX_IN_FLIGHT
    compress: Annotated[bool, about("Send bulk requests compressed: for slow networks.")] = False


class Connections(SpecStruct, frozen=True):
    """Airflow connections, by their ids."""

    opensearch: Annotated[str, about("The cluster.")] = "opensearch_default"
    aws: Annotated[str, about("S3, SageMaker and Bedrock.")] = "aws_default"
    ai: Annotated[str | None, about("The key of OpenAI or Cohere; their usual one if not said.", "openai_default")] = (
        None
    )


class Alerts(SpecStruct, frozen=True):
    """Who is told when a run fails, leaves dead letters, or keeps out every record."""

    email: Annotated[list[str], about("Addresses, through the connection `smtp_default`.", ["search@example.com"])] = []
    webhook: Annotated[
        str | None, about("An Airflow connection of type http; gets a JSON object by POST.", "alerts_webhook")
    ] = None


class SpecTest(SpecStruct, frozen=True):
    """Sample records and predictions in, expected documents out; run by `python -m opensearch_batch check`."""

    name: Annotated[str, about("What it shows.", "a passage with its vector")]
    records: Annotated[list[dict[str, Any]], about("Records as they stand in the source.", [{"text": "a cat"}])]
    documents: Annotated[
        list[dict[str, Any]],
        about("The documents, in the order of the records, `_id` included.", [{"_id": "1", "embedding": [0.6, 0.8]}]),
    ]
    predictions: Annotated[
        list[Any] | None,
        about("What the model says of each record; a list of as many where `input` has several paths.", [[0.6, 0.8]]),
    ] = None
    outputs: Annotated[list[dict[str, Any]] | None, about("Or the service's own output rows, record for record.")] = (
        None
    )
    dead_letters: Annotated[
        list[str], about("A part of each reason, in the order of the records.", ["nothing at $.text"])
    ] = []


class PipelineSpec(SpecStruct, frozen=True, kw_only=True):
    """A pipeline: from documents at `source` through `batch_predict` to `ingest`, its own files below `work`."""

    description: Annotated[str, about("Shown in Airflow's UI.", "Passages with their vectors, every night.")] = ""
    schedule: Annotated[
        str | Schedule | None,
        about("When it runs by itself: a cron expression, a preset, `none`, or more. Backfills need one.", "0 2 * * *"),
    ] = None
    source: SourceSpec
    id: Annotated[
        Path | None,
        about(
            "The path of a document's id in a record: short for `_id` in the field map. Beside `processors` it is "
            "looked for in what they leave; where nothing is, the id is made of the record's place.",
            "$.id",
        ),
    ] = None
    work: Annotated[
        Annotated[str, Meta(pattern=S3_PREFIX)],
        about("The S3 prefix for shards, jobs, outputs, reports and dead letters.", "s3://my-work-bucket"),
    ]
    shard: Annotated[ShardSize, about("Where shards are cut.")] = ShardSize()
    batch_predict: BatchPredict
    ingest: IngestSpec
    retention_days: Annotated[
        Count | None,
        about("Inputs, outputs and uploaded files are removed so long after their last successful run; `null`: never."),
    ] = 30
    connections: Connections = Connections()
    owner: Annotated[str, about("Shown in Airflow's UI.", "search-team")] = "airflow"
    tags: Annotated[list[str], about("Tags of the DAG, beside opensearch and the service.", ["books"])] = []
    alerts: Alerts = Alerts()
    tests: Annotated[list[SpecTest], about("Samples with what must become of them.")] = []

    @property
    def field_map(self) -> dict[str, Any]:
        """The field map with the document's id in it."""
        return self.ingest.field_map if self.id is None else {"_id": self.id, **self.ingest.field_map}

    @property
    def named(self) -> bool:
        """Whether a document's id comes from its record; else it is made of where the record stands."""
        return "_id" in self.field_map

    @property
    def on_missing(self) -> dict[str, OnMissing]:
        """What a missing value does, by field; YAML's own null is the word."""
        said = self.ingest.on_missing
        if said is None:
            return {}
        return {
            name: policy or "null" for name, policy in (said if isinstance(said, dict) else {ANY_FIELD: said}).items()
        }

    @property
    def when(self) -> Schedule:
        """The schedule, the short form written out."""
        if isinstance(self.schedule, Schedule):
            return self.schedule
        return Schedule(cron=None if self.schedule in (None, "none") else self.schedule)
