"""The schema of a pipeline file.

The reader, its hints, the JSON Schema and the reference page are generated from these types: `description` states what
a value means, and `examples` show how to write it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from opensearch_batch.core.ingest.request import (
    MAX_BODY_BYTES,
    MAX_IN_FLIGHT,
    BodyBytes,
    InFlight,
    IngestRequest,
    LoadSettings,
    OnUnmatched,
    OpType,
)
from opensearch_batch.core.pipeline.spec_parts import (
    S3_PREFIX,
    Alerts,
    Count,
    JsonPath,
    Percent,
    Schedule,
    Seconds,
    SourceSpec,
    SpecTest,
    about,
)
from opensearch_batch.core.sharding.listing import index_uri
from opensearch_batch.core.transform.field_map import ANY_FIELD, OnMissing
from opensearch_batch.core.transform.map_paths import HIT_ID, HIT_ROUTING
from opensearch_batch.core.types.counts import MAX_DEAD_LETTERS, MIN_FAILED, REPAIR_AT_MOST
from opensearch_batch.core.types.job import DEADLINE_S


class SpecStruct(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a pipeline file."""


class ModelSpec(SpecStruct, frozen=True):
    """The model of a service; exactly one of `model_id`, `stack` and `connector`."""

    model_id: Annotated[str | None, about("ID of a model registered with ML Commons.", "2CkEl5MBZ-PyHUSg2ZGD")] = None
    stack: Annotated[
        str | None, about("Name of the CloudFormation stack that created the model.", "opensearch-sagemaker")
    ] = None
    connector: Annotated[
        str | None,
        about(
            "Connector that the package ships, or a file (without `.json`) in `connectors/` beside `pipelines/`; "
            "connector and model are created from it if absent.",
            "sagemaker",
        ),
    ] = None
    values: Annotated[
        dict[str, str], about("Values for the connector's `<placeholders>`.", {"model_name": "all-MiniLM-L6-v2"})
    ] = {}
    parameters: Annotated[dict[str, Any], about("Parameters of each job; they override those of the connector.")] = {}


class BatchPredict(ModelSpec, frozen=True, kw_only=True):
    """The model, its input in a record, and how jobs are submitted and polled."""

    service: Annotated[str, about("AI service: {services}.", "sagemaker")]
    input: Annotated[
        JsonPath | list[JsonPath] | None,
        about("JSON path of the model input in a record; with a list of paths, one prediction for each.", "$.text"),
    ] = None
    instead: Annotated[
        dict[str, ModelSpec],
        about(
            "Alternative services that the trigger form offers, each with its model.",
            {"openai": {"connector": "openai", "values": {"model_name": "text-embedding-3-small"}}},
        ),
    ] = {}
    dimension: Annotated[
        Count | None,
        about("Dimension of the model's vectors; checked against the index before any paid call.", 384),
    ] = None
    max_jobs_in_flight: Annotated[
        Count | None, about("Maximum number of unfinished jobs per pipeline and model, across all runs.", 10)
    ] = None
    retry_time_window_s: Annotated[Seconds, about("How long to retry a submission while the service throttles it.")] = (
        600.0
    )
    retry_interval_s: Annotated[Seconds, about("Interval between retries of a throttled submission.")] = 60.0
    repair_at_most: Annotated[
        Percent,
        about(
            "Share of the records that a run paid for that may be without a prediction; they are submitted once more, "
            f"in one smaller job. With more, and more than {MIN_FAILED} records, the run fails. `0%` allows none.",
            "20%",
        ),
    ] = REPAIR_AT_MOST
    realtime_below: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        about(
            "Fewer records to predict than this are sent one by one through `_predict`, with the connector's `predict` "
            "action, instead of a batch job; `0`: never. Default: the fewest records that a job of the service takes "
            "(100 for `bedrock`, no minimum for the others).",
            100,
        ),
    ] = None
    predictions: Annotated[
        Literal["own", "shared"],
        about(
            "`shared`: pipelines with the same `work_prefix` share their predictions, so that none pays for a text "
            "that another has paid for."
        ),
    ] = "own"
    poll_every_s: Annotated[Seconds, about("First polling interval of a job; it grows with the job's age.")] = 30.0
    poll_at_most_s: Annotated[Seconds, about("Longest polling interval.")] = 300.0
    deadline_s: Annotated[
        Seconds, about("Time after its submission at which an unfinished job is cancelled.", 86400)
    ] = DEADLINE_S

    @property
    def inputs(self) -> list[str]:
        """The input paths as a list."""
        if self.input is None:
            return []
        return [self.input] if isinstance(self.input, str) else self.input

    @property
    def models(self) -> dict[str, ModelSpec]:
        """The model of each service, the default service first."""
        return {self.service: self, **self.instead}


class ShardSize(SpecStruct, frozen=True):
    """Maximum size of a shard; the limits of the service apply as well."""

    max_records: Annotated[Count, about("Maximum records per shard (one shard is one job).", 10_000)] = 10_000
    max_bytes: Annotated[Count, about("Maximum bytes per shard.", 100_000_000)] = 100_000_000


class IngestSpec(SpecStruct, frozen=True):
    """The index, and how records and predictions become its documents."""

    index: Annotated[str, about("Name of the index.", "passages")]
    field_map: Annotated[
        dict[str, Any],
        about(
            "Index field: JSON path in a record (`$.title`), `prediction` or `prediction[1]`, or a path in the "
            "output row of the service (`$.SageMakerOutput[0]`).",
            {"title": "$.title", "embedding": "prediction"},
        ),
    ] = {}
    processors: Annotated[
        list[dict[str, Any]] | None,
        about(
            "Data Prepper processors instead of `field_map`: applied to the service's output row, which contains its "
            "record; the result is the document. `[]` indexes the row unchanged.",
            [{"copy_values": {"entries": [{"from_key": "/SageMakerOutput", "to_key": "embedding"}]}}],
        ),
    ] = None
    when: Annotated[
        str | None,
        about(
            "Data Prepper condition, evaluated after `processors`; rows that do not match are not indexed and are "
            "counted as unrouted.",
            "/title != null",
        ),
    ] = None
    ingest_fields: Annotated[
        list[str],
        about(
            "JSON paths in a record; each is indexed as a field with the path's last name, `$.*` as all members.",
            ["$.title"],
        ),
    ] = []
    index_body: Annotated[
        str | None,
        about(
            "Body of the index, which is created if absent: a file (without `.json`) in `indexes/` beside "
            "`pipelines/`, or one that the package ships.",
            "passages",
        ),
    ] = None
    op_type: Annotated[
        OpType,
        about("If the document exists, `index` replaces it, `create` keeps it, and `upsert` merges into it."),
    ] = "index"
    on_missing: Annotated[
        OnMissing | dict[str, OnMissing | None] | None,
        about(
            "What to do when a record lacks a mapped path: `null`, `omit` or `dead_letter`, for all fields or per "
            "field (`*`: all others). Default: `dead_letter` for vectors, `null` for other fields.",
            {"embedding": "dead_letter", "*": "omit"},
        ),
    ] = None
    on_unmatched: Annotated[
        OnUnmatched,
        about("What to do with a record without a prediction: `index_partial` indexes its other fields."),
    ] = "dead_letter"
    ingest_pipeline: Annotated[str | None, about("Name of an OpenSearch ingest pipeline.", "add-date")] = None
    routing: Annotated[str | None, about("JSON path of the routing value.", "$.tenant")] = None
    load: Annotated[
        LoadSettings | None,
        about("Index settings during the load; restored afterwards.", {"number_of_replicas": 0}),
    ] = None
    dead_letters: Annotated[
        Annotated[str, Meta(pattern=S3_PREFIX)] | None,
        about("S3 prefix for dead letters. Default: below `work_prefix`.", "s3://dead-letters/passages/"),
    ] = None
    max_body_bytes: Annotated[BodyBytes, about("Maximum bytes per bulk request.")] = MAX_BODY_BYTES
    max_in_flight: Annotated[InFlight, about("Maximum concurrent bulk requests.")] = MAX_IN_FLIGHT
    compress: Annotated[bool, about("Compress bulk requests (for slow networks).")] = False


class Connections(SpecStruct, frozen=True):
    """IDs of Airflow connections."""

    opensearch: Annotated[str, about("The OpenSearch cluster.")] = "opensearch_default"
    aws: Annotated[str, about("S3, and the AI services of AWS.")] = "aws_default"
    ai: Annotated[
        str | None,
        about(
            "API key of the AI service, if it needs one. Default: `cohere_default` for `cohere`, and so on.",
            "openai_default",
        ),
    ] = None


class PipelineSpec(SpecStruct, frozen=True, kw_only=True):
    """A pipeline: `source` -> `batch_predict` -> `ingest`; its working files are stored below `work_prefix`."""

    description: Annotated[str, about("Shown in Airflow's UI.", "Passages with their vectors, every night.")] = ""
    schedule: Annotated[
        str | Schedule | None,
        about("Cron expression, preset, `none`, or a schedule object. Backfills need a schedule.", "0 2 * * *"),
    ] = None
    source: SourceSpec
    id: Annotated[
        JsonPath | None,
        about(
            "JSON path of the document id in a record; shorthand for `_id` in the field map. With `processors`, the "
            "path in their result; a document without an id gets one derived from the record's origin.",
            "$.id",
        ),
    ] = None
    work_prefix: Annotated[
        Annotated[str, Meta(pattern=S3_PREFIX)],
        about("S3 prefix for shards, jobs, outputs, reports and dead letters.", "s3://my-work-bucket"),
    ]
    shard: Annotated[ShardSize, about("Maximum size of a shard.")] = ShardSize()
    batch_predict: BatchPredict
    ingest: IngestSpec
    retention_days: Annotated[
        Count | None,
        about(
            "Files of jobs and runs, and predictions that the ledger no longer names, are deleted after this many "
            "days; `null`: never."
        ),
    ] = 30
    max_dead_letters: Annotated[
        Percent,
        about(
            f"Share of records that may become dead letters; {MIN_FAILED} records may, if they are not more than half. "
            "With more, the run fails, if possible before any job. `0%` allows none.",
            "5%",
        ),
    ] = MAX_DEAD_LETTERS
    task_timeout_s: Annotated[Seconds, about("Maximum run time of a task; Airflow then retries it.", 86400)] = 86_400.0
    connections: Connections = Connections()
    owner: Annotated[str, about("Shown in Airflow's UI.", "search-team")] = "airflow"
    tags: Annotated[list[str], about("Tags of the DAG, in addition to `opensearch` and the service.", ["books"])] = []
    alerts: Alerts = Alerts()
    tests: Annotated[list[SpecTest], about("Sample records with their expected documents.")] = []

    @property
    def source_conn_id(self) -> str:
        """The connection of the cluster that has the source index."""
        return self.source.opensearch_conn_id or self.connections.opensearch

    @property
    def source_uri(self) -> str:
        """The URI of the source, which may be an index."""
        index = self.source.index
        return self.source.uri if index is None else index_uri(self.source_conn_id, index)

    @property
    def in_place(self) -> bool:
        """Whether the predictions are written into the documents of the source index."""
        is_same = self.source.index == self.ingest.index
        return is_same and self.source_conn_id == self.connections.opensearch

    @property
    def field_map(self) -> dict[str, Any]:
        """The field map including `_id`; documents of an index keep their ids."""
        has_id = self.id is not None or (self.source.index is not None and "_id" not in self.ingest.field_map)
        return {"_id": self.id or HIT_ID, **self.ingest.field_map} if has_id else self.ingest.field_map

    @property
    def routing(self) -> str | None:
        """The path of the routing value; documents of an index keep theirs."""
        return self.ingest.routing or (None if self.source.index is None else HIT_ROUTING)

    @property
    def on_missing(self) -> dict[str, OnMissing]:
        """The policy for missing values, by field; a YAML null means the policy `null`."""
        configured = self.ingest.on_missing
        if configured is None:
            return {}
        return {
            name: policy or "null"
            for name, policy in (configured if isinstance(configured, dict) else {ANY_FIELD: configured}).items()
        }

    @property
    def request(self) -> IngestRequest:
        """What an ingest writes, without the settings of bulk requests."""
        ingest = self.ingest
        return IngestRequest(
            ingest.index,
            self.field_map,
            list(ingest.ingest_fields),
            ingest.op_type,
            self.on_missing,
            ingest.on_unmatched,
            routing=self.routing,
            processors=ingest.processors,
            when=ingest.when,
        )

    @property
    def when(self) -> Schedule:
        """The schedule in its long form."""
        if isinstance(self.schedule, Schedule):
            return self.schedule
        return Schedule(cron=None if self.schedule in (None, "none") else self.schedule)
