"""Inputs that are ready are sent as they are, where they are; one that cannot be a job is refused before it is paid."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.sharding.listing import find_documents
from opensearch_batch.core.sharding.passthrough import passthrough_shards
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.types.manifest import PrepareCounts, PreparedShard, SourceRange
from opensearch_batch.core.types.shard_limits import ShardLimits

LIMITS = ShardLimits(max_records=5, max_bytes=100, max_record_bytes=50, min_records=2)


def take(folder: Path, files: dict[str, bytes]) -> tuple[list[PreparedShard], PrepareCounts]:
    """Take the files of a folder as SageMaker's inputs."""
    objects = LocalFiles(folder)
    for name, content in files.items():
        objects.write(f"s3://in/{name}", content)
    listing = find_documents(objects, Layout("s3://work", "p"), "s3://in/")
    found = passthrough_shards(objects, listing, limits=LIMITS, job_key=lambda digest: digest)
    assert not list(objects.list("s3://work/"))
    return found


def test_each_object_is_a_shard_where_it_is(tmp_path: Path) -> None:
    """Its job is known by its content; a last line needs no end."""
    shards, counts = take(tmp_path, {"a.jsonl": b'{"a":1}\n{"a":2}\n', "b.jsonl": b'{"a":3}\r\n{"a":4}'})
    assert counts == PrepareCounts(read=4, records=4)
    first, second = shards
    assert (first.shard.input, first.shard.records, first.shard.bytes, first.shard.source) == (
        "s3://in/a.jsonl", 2, 16, "",
    )  # fmt: skip
    assert first.shard.etag != second.shard.etag != ""
    assert first.shard.job == hashlib.sha256(b'{"a":1}\n{"a":2}\n').hexdigest()
    assert second.source_ranges == [SourceRange("s3://in/b.jsonl", 1, 2)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.jsonl": b'{"a":1}\n{oops\n'}, r"a.jsonl line 2: not JSON.*use prepare: true"),
        ({"a.jsonl": b'{"a":1}\n\n{"a":2}\n'}, "a.jsonl line 2: the line is empty"),
        ({"a.jsonl": b'{"a":1}\n'}, "1 records, .* a job accepts 2 to 5 records"),
        ({"a.jsonl": b'{"a":1}\n' * 6}, "6 records"),
        ({"a.jsonl": b'{"a":"%b"}\n' % (b"x" * 40) * 3}, "3 records, 147 bytes"),
        ({"a.jsonl": b'{"a":1}\n' * 2, "a.jsonl.bak": b'{"a":1}\n' * 2}, "a.jsonl.bak starts with this URI"),
        ({}, "no objects below this prefix"),
    ],
)
def test_what_cannot_be_a_job_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """By its place, with what to do."""
    with pytest.raises(ConfigError, match=message):
        take(tmp_path, files)
