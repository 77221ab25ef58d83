"""Prepare gives the same shards for the same source, and loses no line."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from opensearch_batch.core.errors import ConfigError, FatalError, RecordRejected
from opensearch_batch.core.sharding.listing import find_documents
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.manifest import PrepareCounts, PreparedShard, SourceRange
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.shard_limits import ShardLimits
from tests.stored import content

LIMITS = ShardLimits(max_records=3, max_bytes=1000, max_record_bytes=200)


def needs_text(record: bytes, name: str) -> bytes:  # noqa: ARG001 - a service that needs no ids
    """Reject a record without text, as a service does."""
    if b'"text"' not in record:
        raise RecordRejected("nothing at $.text")
    return record


def prepare(
    store: S3Objects,
    bucket: str,
    *,
    limits: ShardLimits = LIMITS,
    source: str = "in/",
    line: Callable[[bytes, str], bytes] = needs_text,
    keeps_records: bool = False,
) -> tuple[list[PreparedShard], PrepareCounts]:
    """Run prepare over a bucket."""
    work_prefix = Layout(f"s3://{bucket}/kept", "p")
    with DeadLetters(store, work_prefix.dead_letters("run", "prepare")) as dead:
        stage = ShardWriter(
            store,
            work_prefix,
            limits=limits,
            request_line=line,
            keeps_records=keeps_records,
            job_key=lambda d: d[:8],
            dead=dead,
        )
        return stage.run(find_documents(store, work_prefix, f"s3://{bucket}/{source}"))


def test_one_prefix_may_mix_formats(store: S3Objects, bucket: str) -> None:
    """Arrays, indented objects, JSON Lines and CSV give the same records; none becomes a dead letter."""
    rows = [{"text": "a"}, {"text": "b"}]
    put(store, bucket, "in/a.json", json.dumps(rows, indent=2).encode())
    put(store, bucket, "in/b.json", *(json.dumps(row, indent=2).encode() for row in rows))
    put(store, bucket, "in/c.jsonl", *(json.dumps(row).encode() for row in rows))
    put(store, bucket, "in/d.csv", b"text", b"a", b"b")
    shards, counts = prepare(store, bucket)
    assert counts == PrepareCounts(8, 8)
    lines = b"".join(content(store, each.shard.input) for each in shards).splitlines()
    assert [json.loads(line) for line in lines] == rows * 4


def put(store: S3Objects, bucket: str, name: str, *lines: bytes) -> None:
    """Write a source."""
    content = b"\n".join(lines)
    store.write(f"s3://{bucket}/in/{name}", gzip.compress(content) if name.endswith(".gz") else content)


def rows(first: int, count: int) -> list[bytes]:
    """Make records."""
    return [b'{"text":"%d"}' % n for n in range(first, first + count)]


def lines(store: S3Objects, uri: str) -> list[bytes]:
    """Return an object's lines."""
    return content(store, uri).splitlines()


def test_shards_are_cut_across_objects_and_the_same_each_time(store: S3Objects, bucket: str) -> None:
    """Seven records of two objects make shards of three; a second run finds them and writes none."""
    put(store, bucket, "a.jsonl", *rows(0, 1))
    put(store, bucket, "b.jsonl.gz", *rows(1, 6))
    first, counts = prepare(store, bucket)
    assert counts == PrepareCounts(read=7, records=7)
    assert [prepared.shard.records for prepared in first] == [3, 3, 1]
    a, b = f"s3://{bucket}/in/a.jsonl", f"s3://{bucket}/in/b.jsonl.gz"
    assert first[0].source_ranges == [SourceRange(a, 1, 1), SourceRange(b, 1, 2)]
    assert lines(store, first[0].shard.input) == rows(0, 3)
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
    assert shards[0].source_ranges == [
        SourceRange(f"s3://{bucket}/in/a.jsonl", 1, 1),
        SourceRange(f"s3://{bucket}/in/a.jsonl", 8, 1),
    ]
    letters = list(map(json.loads, lines(store, f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl")))
    assert [letter["line"] for letter in letters] == [2, 4, 5, 6, 7]
    assert {letter["source"] for letter in letters} == {f"s3://{bucket}/in/a.jsonl"}
    assert letters[0]["record"] == "{oops"
    assert letters[0]["reason"].startswith("not JSON")
    assert letters[1]["reason"] == "nothing at $.text"
    assert letters[3]["record_base64"] == "/w=="
    assert "longer than 200 bytes, the limit of the service" in letters[4]["reason"]


def test_an_empty_prefix_is_named(store: S3Objects, bucket: str) -> None:
    """Nothing below the prefix is a mistake, said before anything is made."""
    with pytest.raises(ConfigError, match=r"in/: no objects below this prefix"):
        prepare(store, bucket)


def test_a_source_without_a_usable_record_fails_and_keeps_its_dead_letters(store: S3Objects, bucket: str) -> None:
    """The error says where the reasons stand."""
    put(store, bucket, "a.jsonl", b"{oops")
    with pytest.raises(FatalError, match=r"no usable record; first reasons: .*not JSON.*s3://.*/prepare/"):
        prepare(store, bucket)
    assert store.read(f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl") is not None


@pytest.mark.parametrize("source", ["", "kept/jobs/"])
def test_a_source_that_holds_the_work_prefix_is_refused(store: S3Objects, bucket: str, source: str) -> None:
    """Or each run would predict, and pay for, what the last one wrote."""
    put(store, bucket, "a.jsonl", *rows(0, 1))
    with pytest.raises(ConfigError, match="overlap; use separate prefixes"):
        prepare(store, bucket, source=source)


def test_a_repeated_stage_leaves_no_dead_letters_of_the_first(store: S3Objects, bucket: str) -> None:
    """A mended source has none."""
    put(store, bucket, "a.jsonl", b"{oops", *rows(0, 1))
    prepare(store, bucket)
    put(store, bucket, "a.jsonl", *rows(0, 1))
    prepare(store, bucket)
    assert store.read(f"s3://{bucket}/kept/p/run/dead_letters/prepare/00001.jsonl") is None


def with_id(record: bytes, name: str) -> bytes:
    """Make the line of a service that answers by id."""
    return b'{"id":"%b","in":%b}' % (name.encode(), needs_text(record, name))


def test_records_are_numbered_in_their_shard_and_kept_beside_it(store: S3Objects, bucket: str) -> None:
    """A rejected record takes no number; the kept records stand under the same ids as the service's lines."""
    put(store, bucket, "a.jsonl", b'{"text":"0"}', b'{"no":1}', *rows(1, 3))
    shards, counts = prepare(store, bucket, line=with_id, keeps_records=True)
    assert counts == PrepareCounts(read=5, records=4, dead_letters=1)
    first, second = (prepared.shard for prepared in shards)
    assert lines(store, first.input) == [b'{"id":"r%010d","in":{"text":"%d"}}' % (n, n) for n in range(3)]
    assert lines(store, first.source) == [b'{"record_id":"r%010d","record":{"text":"%d"}}' % (n, n) for n in range(3)]
    assert lines(store, second.input) == [b'{"id":"r0000000000","in":{"text":"3"}}']


def test_the_same_input_keeps_other_records_apart(store: S3Objects, bucket: str) -> None:
    """A job is shared by what the model reads alone; each run finds its own records beside it."""

    def text_alone(record: bytes, name: str) -> bytes:
        return with_id(msgspec.json.encode({"text": msgspec.json.decode(record)["text"]}), name)

    put(store, bucket, "a.jsonl", b'{"text":"a","n":1}')
    (first,), _ = prepare(store, bucket, line=text_alone, keeps_records=True)
    put(store, bucket, "a.jsonl", b'{"text":"a","n":2}')
    (second,), _ = prepare(store, bucket, line=text_alone, keeps_records=True)
    assert first.shard.input == second.shard.input
    assert [lines(store, each.shard.source) for each in (first, second)] == [
        [b'{"record_id":"r0000000000","record":{"text":"a","n":%d}}' % n] for n in (1, 2)
    ]


@pytest.mark.parametrize(("records", "expected"), [(3, [3]), (4, [4]), (5, [3, 2]), (7, [3, 4]), (8, [3, 3, 2])])
def test_a_shard_too_small_for_the_service_joins_the_one_before(
    store: S3Objects, bucket: str, records: int, expected: list[int]
) -> None:
    """Its records are numbered on from there, and keep their places."""
    put(store, bucket, "a.jsonl", *rows(0, records))
    limits = ShardLimits(3, 1000, 200, min_records=2)
    shards, _ = prepare(store, bucket, limits=limits, line=with_id)
    assert [prepared.shard.records for prepared in shards] == expected
    last, first = shards[-1], records - expected[-1]
    assert last.source_ranges == [SourceRange(f"s3://{bucket}/in/a.jsonl", first + 1, expected[-1])]
    assert lines(store, last.shard.input) == [
        b'{"id":"r%010d","in":{"text":"%d"}}' % (n, first + n) for n in range(expected[-1])
    ]


def test_too_few_records_for_the_service_are_refused(store: S3Objects, bucket: str) -> None:
    """Before anything is paid."""
    put(store, bucket, "a.jsonl", *rows(0, 1))
    with pytest.raises(ConfigError, match="the source has 1 records, but a job of the service needs at least 2"):
        prepare(store, bucket, limits=ShardLimits(3, 1000, 200, min_records=2))


def test_a_shard_is_taken_before_it_is_looked_for(store: S3Objects, bucket: str, s3_client: Any) -> None:
    """Else another run could remove what was found there, and not written again."""
    seen = list[bool]()

    class Watching(S3Objects):
        def head(self, uri: str) -> ObjectInfo | None:
            if uri.endswith("/input.jsonl"):
                seen.append(super().head(uri.replace("input.jsonl", "in_use.json")) is not None)
            return super().head(uri)

    put(store, bucket, "a.jsonl", *rows(0, 2))
    prepare(Watching(s3_client), bucket)
    assert seen == [True]
