"""The schema of a pipeline's source."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Struct

from opensearch_batch.core.pipeline.spec_base import JsonPath, Percent, about
from opensearch_batch.core.types.counts import MAX_REMOVED, MIN_REMOVED
from opensearch_batch.core.types.formats import Format


class DeletedRecords(Struct, frozen=True, forbid_unknown_fields=True):
    """Records that delete their documents (tombstones); needs an `_id` in each record."""

    path: Annotated[JsonPath, about("JSON path in a record.", "$.op")]
    equals: Annotated[str | int | float | bool, about("The value there of a record that deletes.", "delete")]


class SourceSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Location and format of the documents."""

    uri: Annotated[
        str,
        about(
            "S3 prefix that ends in `/`, a glob, or one object. `{{ ds }}` is the date of the run, `{{ ds_nodash }}` "
            "the same without hyphens, `{{ partition_key }}` its partition.",
            "s3://documents/dt={{ ds }}/",
        ),
    ]
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
