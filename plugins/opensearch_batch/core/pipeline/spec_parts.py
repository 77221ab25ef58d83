"""Parts of the schema of a pipeline file: single values, descriptions of keys, schedule, source, alerts, tests."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from opensearch_batch.core.types.counts import MAX_REMOVED, MIN_REMOVED, PERCENT
from opensearch_batch.core.types.formats import Format

JsonPath = Annotated[str, Meta(min_length=1)]
Seconds = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Percent = Annotated[str, Meta(pattern=PERCENT)]
S3_PREFIX = "^s3://[^/]"


def about(text: str, example: object = None) -> Meta:
    """Return the description of a key; error messages show `example` if the value of the key is invalid."""
    return Meta(description=text, examples=None if example is None else [example])


class NewObjects(Struct, frozen=True, forbid_unknown_fields=True):
    """Starts a run when objects are added to the source or change."""

    poll_every_s: Annotated[
        Seconds, about("Interval between listings of the source, or between reads of the queue.", 60)
    ] = 60.0
    sqs: Annotated[
        str | None,
        about(
            "URL of the SQS queue that receives the bucket's event notifications; used instead of listings.",
            "https://sqs.us-east-1.amazonaws.com/123456789012/documents",
        ),
    ] = None


class Schedule(Struct, frozen=True, forbid_unknown_fields=True):
    """When runs are scheduled; exactly one of `cron`, `partitions`, `assets` and `new_objects`."""

    cron: Annotated[str | None, about("Cron expression or preset; each run has a date, `{{ ds }}`.", "@daily")] = None
    partitions: Annotated[
        str | None,
        about("Cron expression; each run has a partition, `{{ partition_key }}`.", "0 2 * * *"),
    ] = None
    key_format: Annotated[str, about("Format of the partition key (strftime).", "%Y-%m-%d")] = "%Y-%m-%d"
    timezone: Annotated[
        str, about("Time zone of `cron`, of `partitions` and of the date `{{ ds }}`.", "Europe/Vienna")
    ] = "UTC"
    assets: Annotated[
        list[str],
        about(
            "URIs of assets that other DAGs update; a run starts when all of them have been updated.",
            ["x-opensearch://opensearch_default/books"],
        ),
    ] = []
    new_objects: Annotated[
        NewObjects | None, about("Starts a run when objects are added to the source or change.", {"poll_every_s": 60})
    ] = None


class DeletedRecords(Struct, frozen=True, forbid_unknown_fields=True):
    """Records that delete their documents (tombstones); needs an `_id` in each record."""

    path: Annotated[JsonPath, about("JSON path in a record.", "$.op")]
    equals: Annotated[str | int | float | bool, about("The value there of a record that deletes.", "delete")]


class SourceSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Location and format of the documents: objects at a `uri`, or the documents of an `index`."""

    uri: Annotated[
        str,
        about(
            "S3 prefix that ends in `/`, a glob, or one object. `{{ ds }}` is the date of the run, `{{ ds_nodash }}` "
            "the same without hyphens, `{{ partition_key }}` its partition.",
            "s3://documents/dt={{ ds }}/",
        ),
    ] = ""
    index: Annotated[
        str | None,
        about(
            "Index whose documents are the records, instead of `uri`; each record has the members `_id` and, if the "
            "document has one, `_routing`. If it is also `ingest.index`, only the predictions are written, in place.",
            "products",
        ),
    ] = None
    query: Annotated[
        dict[str, Any] | None,
        about("Query that the documents of `index` must match; all documents if absent.", {"term": {"lang": "en"}}),
    ] = None
    version_field: Annotated[
        str | None,
        about(
            "Field of type `date` or `long` that grows with each change of a document of `index`; then "
            "documents are read again only if it changed. Default: each write of a document counts until it is read.",
            "updated_at",
        ),
    ] = None
    opensearch_conn_id: Annotated[
        str | None,
        about("Connection of the cluster that has `index`. Default: `connections.opensearch`.", "opensearch_products"),
    ] = None
    split_bytes: Annotated[
        Count,
        about(
            "If more bytes changed than this, several tasks read the source: each reads about this number, as objects "
            "or as parts of a large JSON Lines object.",
            268_435_456,
        ),
    ] = 268_435_456
    include: Annotated[
        list[str],
        about(
            "Globs; an object is read only if its name below the prefix matches one. `*` and `?` do not match `/`, "
            "`**` does; a glob without `/` matches in every folder.",
            ["*.jsonl", "*.jsonl.gz"],
        ),
    ] = []
    exclude: Annotated[list[str], about("Globs; objects whose name matches one are skipped.", ["*.tmp"])] = []
    format: Annotated[
        Format | None,
        about(
            "`jsonl`: one JSON object per line. `json`: one JSON object, or an array of objects. `csv`: with a header; "
            "all values are strings. `parquet`. Default: by file extension, else JSON in the layout of the object's "
            "first bytes, so one prefix may mix formats. Objects may be compressed (`.gz`, `.zst`).",
            "csv",
        ),
    ] = None
    prepare: Annotated[
        bool,
        about("`false`: each object is service-ready input and is submitted as one job, unchanged and not copied."),
    ] = True
    on_empty: Annotated[
        Literal["fail", "skip"],
        about("What a run does when the source has no objects, such as a partition without documents."),
    ] = "fail"
    mode: Annotated[
        Literal["snapshot", "append"] | None,
        about(
            "`snapshot`: the source is complete, so a record that is absent was removed. `append`: absence means "
            "nothing, and of records with the same id, the one in the object that changed last counts. Default: "
            "`append` for partitions, dates and `new_objects`, else `snapshot`; `opensearch-batch check` shows it.",
            "snapshot",
        ),
    ] = None
    on_removed: Annotated[
        Literal["keep", "delete"],
        about("What happens to the documents of removed records. `delete` needs an `_id` in each record."),
    ] = "keep"
    max_removed: Annotated[
        Percent,
        about(
            "Share of the documents that a run may delete because their records were removed; a run that would delete "
            f"more is refused before anything is paid for, written or deleted. {MIN_REMOVED} documents may always be "
            "deleted, unless it is `0%`.",
            "20%",
        ),
    ] = MAX_REMOVED
    deleted: Annotated[
        DeletedRecords | None,
        about("Records that delete their documents.", {"path": "$.op", "equals": "delete"}),
    ] = None


class Alerts(Struct, frozen=True, forbid_unknown_fields=True):
    """Notifications when a run fails, produces dead letters, or filters out every record."""

    email: Annotated[
        list[str], about("Email addresses; sent through the connection `smtp_default`.", ["search@example.com"])
    ] = []
    webhook: Annotated[
        str | None, about("Airflow connection of type http; receives a JSON object by POST.", "alerts_webhook")
    ] = None


class SpecTest(Struct, frozen=True, forbid_unknown_fields=True):
    """Sample records and predictions, and the expected documents; run by `opensearch-batch check`."""

    name: Annotated[str, about("Name of the test in messages.", "a passage with its vector")]
    records: Annotated[list[dict[str, Any]], about("Records as in the source.", [{"text": "a cat"}])]
    documents: Annotated[
        list[dict[str, Any]],
        about(
            "Expected documents, in the order of the records, including `_id`.", [{"_id": "1", "embedding": [0.6, 0.8]}]
        ),
    ]
    predictions: Annotated[
        list[Any] | None,
        about("Prediction for each record; a list of predictions if `input` has several paths.", [[0.6, 0.8]]),
    ] = None
    outputs: Annotated[
        list[dict[str, Any]] | None, about("Output rows of the service, one for each record, instead of `predictions`.")
    ] = None
    dead_letters: Annotated[
        list[str],
        about("Substring of each expected dead letter reason, in the order of the records.", ["nothing at $.text"]),
    ] = []
