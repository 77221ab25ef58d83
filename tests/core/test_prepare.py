"""Prepare gives the same shards for the same source, and loses no line."""

from __future__ import annotations

import gzip
import json

import pytest

from opensearch_batch.core.dead_letters import DeadLetters
from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.manifest import PrepareCounts, PreparedShard, Segment, WorkPrefix
from opensearch_batch.core.prepare import Prepare, ShardLimits
from opensearch_batch.core.s3 import S3Objects

LIMITS = ShardLimits(max_records=3, max_bytes=1000, max_record_bytes=200)


def needs_text(record: bytes) -> bytes:
    """Reject a record without text, as a service does."""
    if b'"text"' not in record:
        raise RecordRejected("nothing at $.text")
    return record


def prepare(
    store: S3Objects, bucket: str, *, limits: ShardLimits = LIMITS, source: str = "in/"
) -> tuple[list[PreparedShard], PrepareCounts]:
    """Run prepare over a bucket."""
    work = WorkPrefix(f"s3://{bucket}/kept", "p")
    with DeadLetters(store, work.dead_letters("run", "prepare")) as dead:
        stage = Prepare(store, work, limits=limits, request_line=needs_text, job_key=lambda d: d[:8], dead=dead)
        return stage.run(f"s3://{bucket}/{source}")


def put(store: S3Objects, bucket: str, name: str, *lines: bytes) -> None:
    """Write a source."""
    content = b"\n".join(lines)
    store.write(f"s3://{bucket}/in/{name}", gzip.compress(content) if name.endswith(".gz") else content)


def rows(first: int, count: int) -> list[bytes]:
    """Make records."""
    return [b'{"text":"%d"}' % n for n in range(first, first + count)]


def test_shards_are_cut_across_objects_and_the_same_each_time(store: S3Objects, bucket: str) -> None:
    """Seven records of two objects make shards of three; a second run finds them and writes none."""
    put(store, bucket, "a.jsonl", *rows(0, 4))
    put(store, bucket, "b.jsonl.gz", *rows(4, 3))
    first, counts = prepare(store, bucket)
    assert counts == PrepareCounts(read=7, records=7)
    assert [prepared.shard.records for prepared in first] == [3, 3, 1]
    a, b = f"s3://{bucket}/in/a.jsonl", f"s3://{bucket}/in/b.jsonl.gz"
    assert first[1].segments == [Segment(a, 4, 1), Segment(b, 1, 2)]
    stored = store.read(first[1].shard.input)
    assert stored is not None
    assert stored.content.splitlines() == rows(3, 3)
    assert prepare(store, bucket) == (first, counts)


def test_a_shard_is_cut_by_bytes_too(store: S3Objects, bucket: str) -> None:
    """A shard never exceeds max_bytes, but takes at least one record."""
    put(store, bucket, "a.jsonl", *rows(0, 4))
    shards, _ = prepare(store, bucket, limits=ShardLimits(100, 30, 200))
    assert [prepared.shard.bytes for prepared in shards] == [26, 26]


def test_bad_lines_are_dead_letters_and_the_rest_goes_on(store: S3Objects, bucket: str) -> None:
    """Each dead letter holds the bytes, the source, the line and the reason; blank lines are only counted."""
    long = b'{"text":"%s"}' % (b"x" * 300)
    put(store, bucket, "a.jsonl", b'{"text":"1"}', b"{oops", b"", b'{"id":2}', b"[1]", b"\xff", long, b'{"text":"2"}')
    shards, counts = prepare(store, bucket)
    assert counts == PrepareCounts(read=7, records=2, dead_letters=5, blank=1)
    assert shards[0].segments == [
        Segment(f"s3://{bucket}/in/a.jsonl", 1, 1),
        Segment(f"s3://{bucket}/in/a.jsonl", 8, 1),
    ]
    stored = store.read(f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl")
    assert stored is not None
    letters = [json.loads(line) for line in stored.content.splitlines()]
    assert [letter["line"] for letter in letters] == [2, 4, 5, 6, 7]
    assert {letter["source"] for letter in letters} == {f"s3://{bucket}/in/a.jsonl"}
    assert letters[0]["record"] == "{oops"
    assert letters[0]["reason"].startswith("not JSON")
    assert letters[1]["reason"] == "nothing at $.text"
    assert letters[3]["record_base64"] == "/w=="
    assert "longer than 200 bytes" in letters[4]["reason"]


def test_an_empty_prefix_is_named(store: S3Objects, bucket: str) -> None:
    """Nothing below the prefix is a mistake, said before anything is made."""
    with pytest.raises(ConfigError, match=r"in/: no objects below this prefix"):
        prepare(store, bucket)


def test_a_source_without_a_usable_record_fails_and_keeps_its_dead_letters(store: S3Objects, bucket: str) -> None:
    """The error says where the reasons stand."""
    put(store, bucket, "a.jsonl", b"{oops")
    with pytest.raises(FatalError, match=r"no usable record; the reasons stand in s3://.*/prepare/"):
        prepare(store, bucket)
    assert store.read(f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl") is not None


@pytest.mark.parametrize("source", ["", "kept/jobs/"])
def test_a_source_that_holds_the_work_prefix_is_refused(store: S3Objects, bucket: str, source: str) -> None:
    """Or each run would predict, and pay for, what the last one wrote."""
    put(store, bucket, "a.jsonl", *rows(0, 1))
    with pytest.raises(ConfigError, match="lie in one another; keep them apart"):
        prepare(store, bucket, source=source)


def test_a_repeated_stage_leaves_no_dead_letters_of_the_first(store: S3Objects, bucket: str) -> None:
    """A mended source has none."""
    put(store, bucket, "a.jsonl", b"{oops", *rows(0, 1))
    prepare(store, bucket)
    put(store, bucket, "a.jsonl", *rows(0, 1))
    prepare(store, bucket)
    assert store.read(f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl") is None
