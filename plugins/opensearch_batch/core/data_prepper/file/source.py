"""Options of the s3 source. Times of a bucket override the times of the scan.

Source: Data Prepper's S3SourceConfig, the classes of its configuration package, and ScanOptions (2.17).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.option_types import BucketName, CheckedOptions, Rule, between, bucket_name
from opensearch_batch.core.config.options import Duration, Options
from opensearch_batch.core.data_prepper.options.aws import OwnedBuckets
from opensearch_batch.core.data_prepper.options.codecs import InputCodec
from opensearch_batch.core.data_prepper.options.expressions import Condition, EventKey
from opensearch_batch.core.data_prepper.scan import Area, Selection
from opensearch_batch.core.types.object_info import Compression

LocalTime = Annotated[datetime, Meta(tz=False, examples=["2026-01-31T00:00:00"])]
_DAY, _MINUTE = 86_400.0, 60.0
_QUEUE = "queues are not supported; write scan: {buckets: [...]}, which finds new objects by listing"


class KeyFilter(Options, frozen=True, kw_only=True):
    """Selects the objects to read by prefix and suffix."""

    include_prefix: tuple[str, ...] = ()
    exclude_suffix: tuple[str, ...] = ()


class ProcessingCondition(Options, frozen=True, kw_only=True):
    """A condition on an object; the other objects in its folder are not read until the condition holds."""

    object_name: Annotated[str, Meta(min_length=1, examples=["manifest.json.out"])]
    when: Annotated[Condition, Meta(examples=["/processedRecordCount == /totalRecordCount"])]
    applicable_prefix: tuple[str, ...] = ()
    retry_delay: Annotated[Duration, between(_MINUTE, 60 * _MINUTE)] = Duration(300)
    max_retry: Annotated[int, Meta(ge=0, le=100)] = 10
    codec: InputCodec | None = None


class TimesOptions(CheckedOptions, frozen=True, kw_only=True):
    """Selects the objects to read by modification time: from start to end, or within a duration before the scan."""

    start_time: LocalTime | None = None
    end_time: LocalTime | None = None
    range: Duration | None = None

    @property
    def has_times(self) -> bool:
        """Whether a time or the range is set."""
        return (self.start_time, self.end_time, self.range) != (None, None, None)

    def rules(self) -> Iterator[Rule]:
        if self.range is not None and (self.start_time, self.end_time) != (None, None):
            yield ("range",), "cannot be combined with start_time and end_time; keep the range or the times"


class BucketOptions(TimesOptions, frozen=True, kw_only=True):
    """The options of a bucket; `name` is stored without ``s3://``."""

    name: BucketName
    data_selection: Selection = "data_and_metadata"
    filter: KeyFilter | None = None
    processing_conditions: tuple[ProcessingCondition, ...] = ()

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", bucket_name(self.name))


class ScanBucket(Options, frozen=True, kw_only=True):
    """An element of ``buckets``."""

    bucket: BucketOptions


class Scheduling(Options, frozen=True, kw_only=True):
    """The schedule of scans: every `interval` seconds, `count` times or indefinitely."""

    interval: Annotated[Duration, Meta(examples=["PT6M"]), between(1.0, 365 * _DAY)]
    count: Annotated[int, Meta(ge=2)] | None = None


class ScanOptions(TimesOptions, frozen=True, kw_only=True):
    """The buckets of a scan, and their default modification times."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "acknowledgment_timeout": "a task ends after it has read its objects, and Airflow retries failed tasks"
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        "folder_partitions": "work is divided by objects, not by folders; remove it"
    }

    buckets: Annotated[tuple[ScanBucket, ...], Meta(min_length=1, examples=[[{"bucket": {"name": "my-bucket"}}]])]
    scheduling: Scheduling | None = None

    def rules(self) -> Iterator[Rule]:
        yield from super().rules()
        if self.scheduling is not None and self.end_time is not None:
            yield ("end_time",), "cannot be combined with scheduling, which has no end; remove end_time or scheduling"


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """A bucket with all defaults applied."""

    name: str
    selection: Selection
    include_prefix: tuple[str, ...] = ()
    exclude_suffix: tuple[str, ...] = ()
    start_time: datetime | None = None
    end_time: datetime | None = None
    range: Duration | None = None
    processing_conditions: tuple[ProcessingCondition, ...] = ()

    def area(self, now: datetime) -> Area:
        """Return the area that a scan reads at the time `now`."""
        since, until = self.start_time, self.end_time
        if self.range is not None:
            since = datetime.fromtimestamp(now.timestamp() - self.range, UTC)
        times = (None if time is None else time.timestamp() for time in (since, until))
        return Area(self.name, self.selection, self.include_prefix, self.exclude_suffix, *times)


class S3Source(OwnedBuckets, frozen=True, kw_only=True):
    """Options of the s3 source."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "workers": "Airflow tasks read the objects, and pools limit them",
        "records_to_accumulate": "rows are streamed",
        "buffer_timeout": "there is no buffer",
        "backoff_time": "a scan runs on schedule, and does not wait for objects",
        "data_selection": "the option applies only to queues; write data_selection at each bucket",
        "on_error": "the option applies only to queues",
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        "sqs": _QUEUE,
        "notification_type": _QUEUE,
        "notification_source": _QUEUE,
        "s3_select": "objects are read whole; remove it and drop rows with drop_events or routes",
    }

    codec: InputCodec
    scan: Annotated[ScanOptions, Meta(examples=[{"buckets": [{"bucket": {"name": "my-bucket"}}]}])]
    compression: Compression = "none"
    acknowledgments: bool = False
    delete_s3_objects_on_read: bool = False
    disable_s3_metadata_in_event: bool = False
    metadata_root_key: EventKey = "s3/"
    filters: dict[str, KeyFilter] = msgspec.field(default_factory=dict)

    @property
    def scheduling(self) -> Scheduling | None:
        """The schedule of scans, or None for a single scan."""
        return self.scan.scheduling

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """The buckets in order, with all defaults applied."""
        return tuple(self._bucket(element.bucket) for element in self.scan.buckets)

    def rules(self) -> Iterator[Rule]:
        if self.delete_s3_objects_on_read and not self.acknowledgments:
            yield ("delete_s3_objects_on_read",), "deletion requires acknowledgments; write acknowledgments: true"
        for number, element in enumerate(self.scan.buckets):
            if bool(self.filters) and element.bucket.filter is not None:
                yield (
                    ("scan", "buckets", number, "bucket", "filter"),
                    "cannot be combined with filters of the source; keep one of the two",
                )
        for bucket in self.filters:
            if bucket not in {element.bucket.name for element in self.scan.buckets}:
                yield ("filters", bucket), "no bucket of the scan has this name; write the name of a bucket of the scan"

    def _bucket(self, options: BucketOptions) -> Bucket:
        times = options if options.has_times else self.scan
        keys = options.filter or self.filters.get(options.name) or KeyFilter()
        return Bucket(
            name=options.name,
            selection=options.data_selection,
            include_prefix=keys.include_prefix,
            exclude_suffix=keys.exclude_suffix,
            start_time=times.start_time,
            end_time=times.end_time,
            range=times.range,
            processing_conditions=options.processing_conditions,
        )
