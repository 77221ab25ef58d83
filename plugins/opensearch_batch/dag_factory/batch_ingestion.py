"""Runs a `_batch_ingestion` request from the form or from a run's conf.

The body of `POST /_plugins/_ml/_batch_ingestion` is a valid conf without its `credential`: keys come from Airflow
connections. The api-server accepts the whole body at the same path. Do not pass a key to `airflow dags trigger --conf`
either: Airflow's audit log keeps the command line, and `ps` shows it. Airflow validates a request against the schemas
below before it creates the run.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from opensearch_batch.core.storage.layout import DEFAULT_WORK_PREFIX
from opensearch_batch.core.types.counts import MAX_DEAD_LETTERS, MIN_FAILED, PERCENT
from opensearch_batch.dag_factory.forms import DAY_S, task_defaults
from opensearch_batch.operators.batch_ingestion import OpenSearchBatchIngestionOperator

NO_CREDENTIAL = (
    "no credential is accepted: Airflow would store it. Name the Airflow connections that hold the keys: "
    "aws_conn_id for S3, openai_conn_id for OpenAI"
)
# Airflow's error for an invalid conf quotes the descriptions of the schemas.
REMOTE = "The DAG reads from S3 and OpenAI; it does not read files of the worker's machine."
SOURCE = {"type": "string", "pattern": "^(s3://.+|[^/\\\\]+)$", "description": REMOTE}
S3_PREFIX = "^s3://[^/]+"
CONN_ID = r"^[\w.-]+$"
PATHS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
ON_MISSING = ["null", "omit", "dead_letter"]
INDEX, WRITING, RUN = "Index", "Invalid rows and locations", "Connections and run"
CREDENTIAL = "Credential: leave empty"
WHOLE = "data_source as the API's JSON"
PARAMS: dict[str, Param] = {
    "index_name": Param("passages-text", type="string", minLength=1, description="The index to write to."),
    "type": Param(
        "s3",
        type="string",
        enum=["s3", "openAI"],
        title="data_source.type",
        description_md=REMOTE,
    ),
    "source": Param(
        ["s3://documents/passages/"],
        type="array",
        items=SOURCE,
        minItems=1,
        title="data_source.source",
        description=(
            "One per line: s3://bucket/key, s3://bucket/prefix/, s3://bucket/*.jsonl.gz, or the id of an OpenAI "
            "file, file-…. Several sources are joined by _id; a path then names its source: source[0].$.…"
        ),
    ),
    "field_map": Param(
        {"_id": "$._id", "text": "$.text", "lemma": "$.metadata.lemma"},
        type="object",
        additionalProperties=PATHS,
        description_md="Field of the index → path in a row. `_id` maps the document id.",
    ),
    "ingest_fields": Param(
        None,
        type=["null", "array"],
        items={"type": "string"},
        description="Further paths, one per line; the field gets the path's last name: $.id becomes id.",
    ),
    "index_body": Param(
        None,
        type=["null", "object"],
        section=INDEX,
        description="Settings and mappings to create the index with, if it is missing.",
    ),
    "op_type": Param(
        "index",
        type="string",
        enum=["index", "create", "upsert"],
        section=INDEX,
        description_md="`index` replaces a document, `create` keeps an existing one, `upsert` updates its fields.",
    ),
    "load": Param(
        None,
        type=["null", "object"],
        section=INDEX,
        description='Index settings during the load, restored afterwards, such as {"refresh_interval": "-1"}.',
    ),
    "on_missing": Param(
        "null",
        type=["string", "object"],
        pattern=f"^({'|'.join(ON_MISSING)})$",
        examples=ON_MISSING,
        additionalProperties={"enum": ON_MISSING},
        section=WRITING,
        description_md="If a row lacks a path: `null`, `omit` or `dead_letter`, or an object of these by field.",
    ),
    "on_unmatched": Param(
        "index_partial",
        type="string",
        enum=["index_partial", "dead_letter", "fail"],
        section=WRITING,
        description="With several sources: what to do with an _id that one of them lacks.",
    ),
    "dead_letters": Param(
        None,
        type=["null", "string"],
        pattern=S3_PREFIX,
        section=WRITING,
        description="S3 prefix for dead letters; below work_prefix if empty.",
    ),
    "max_dead_letters": Param(
        MAX_DEAD_LETTERS,
        type="string",
        pattern=PERCENT,
        section=WRITING,
        description=f"Share of rows that may be dead letters; with more, and over {MIN_FAILED}, the run fails.",
    ),
    "work_prefix": Param(
        DEFAULT_WORK_PREFIX,
        type="string",
        pattern=S3_PREFIX,
        section=WRITING,
        description="S3 prefix for progress, reports and dead letters.",
    ),
    "opensearch_conn_id": Param(
        "opensearch_default", type="string", pattern=CONN_ID, section=RUN, description="The cluster."
    ),
    "aws_conn_id": Param(
        "aws_default", type="string", pattern=CONN_ID, section=RUN, description="Keys and endpoint of S3."
    ),
    "openai_conn_id": Param(
        "openai_default",
        type="string",
        pattern=CONN_ID,
        section=RUN,
        description="Type http or generic; its password is the OpenAI key. Used for openAI sources only.",
    ),
    "source_conn_id": Param(
        None,
        type=["null", "string"],
        pattern=CONN_ID,
        section=RUN,
        description="Keys that read the sources, of S3 or OpenAI; the two connections above if empty.",
    ),
    "force": Param(
        default=False,
        type="boolean",
        section=RUN,
        description="Write every document again, even if an earlier run wrote it.",
    ),
    "credential": Param(
        None,
        type=["null", "object"],
        # An error about a member's name quotes only the name; an error about the object would quote its keys.
        propertyNames={"const": NO_CREDENTIAL},
        section=CREDENTIAL,
        description=f"Leave this empty: {NO_CREDENTIAL}.",
    ),
    "data_source": Param(
        None,
        type=["null", "object"],
        required=["type", "source"],
        properties={
            "type": {"type": "string", "pattern": "^(?i:s3|openai)$", "description": REMOTE},
            "source": {"type": "array", "minItems": 1, "items": SOURCE},
        },
        propertyNames={"enum": ["type", "source"]},
        section=WHOLE,
        description_md='`{"type": …, "source": […]}`, instead of the two fields above.',
    ),
}


def batch_ingestion_dag() -> DAG:
    """Return the DAG `batch_ingestion`, to which the API submits requests."""
    with DAG(
        dag_id="batch_ingestion",
        auto_register=False,
        description="A _batch_ingestion request: JSON Lines from S3 or OpenAI, field-mapped into an index.",
        schedule=None,
        catchup=False,
        tags=["opensearch", "ingest"],
        default_args=task_defaults("airflow", DAY_S),
        params=PARAMS,
        doc_md=__doc__,
    ) as dag:
        OpenSearchBatchIngestionOperator(
            task_id="batch_ingestion",
            work_prefix="{{ params.work_prefix }}",
            opensearch_conn_id="{{ params.opensearch_conn_id }}",
            aws_conn_id="{{ params.aws_conn_id }}",
            openai_conn_id="{{ params.openai_conn_id }}",
            source_conn_id="{{ params.source_conn_id or '' }}",
        )
    return dag
