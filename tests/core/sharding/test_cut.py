"""Shards are cut where they are full, and where news before them moves few of the cuts."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import contains_record
from opensearch_batch.core.pipeline.estimate import estimate, read_listing
from opensearch_batch.core.sharding.cut import MIN_FILL, ShardLimits, ends_after
from opensearch_batch.core.sharding.listing import NoDocuments, find_documents
from opensearch_batch.core.sharding.shard_writer import ShardWriter
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.manifest import PreparedShard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.record_ids import record_id
from opensearch_batch.services.registry import adapter_of
from tests.core.memory_objects import MemoryObjects
from tests.stored import content

LIMITS = ShardLimits(max_records=100, max_bytes=1 << 20, max_record_bytes=1000)


class Lake:
    """A store of documents."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()

    def put(self, name: str, first: int, count: int) -> None:
        """Write documents."""
        rows = (json.dumps({"text": f"{number:06d}"}).encode() + b"\n" for number in range(first, first + count))
        self.objects.write(f"s3://lake/{name}", b"".join(rows))

    def prepare(
        self, name: str = "sagemaker", *, limits: ShardLimits = LIMITS, fast: bool = True, at_most: int | None = None
    ) -> list[PreparedShard]:
        """Cut everything for a service."""
        adapter, work_prefix = adapter_of(name), Layout("s3://work", "p")
        with DeadLetters(self.objects, "s3://work/dead/") as dead:
            stage = ShardWriter(
                self.objects,
                work_prefix,
                limits=limits,
                request_line=adapter.request_line(adapter.example_parameters, ["$.text"]),
                form=adapter.line_form(adapter.example_parameters, ["$.text"]) if fast else None,
                keeps_records=not contains_record(adapter, adapter.example_parameters),
                job_key=lambda digest: digest[:16],
                dead=dead,
            )
            return stage.run(find_documents(self.objects, work_prefix, "s3://lake/"), limit=at_most)[0]


@pytest.fixture
def lake() -> Lake:
    """An empty one."""
    return Lake()


@pytest.mark.parametrize("early", [1, 37, 99])
def test_a_new_object_moves_few_cuts(lake: Lake, early: int) -> None:
    """When an object comes before all others, most jobs are found again: cut where full, none would be."""
    for number in range(500):
        lake.put(f"o{number:04d}.jsonl", number * 13, 13)
    before = {prepared.shard.job for prepared in lake.prepare()}
    lake.put("a-new-one.jsonl", 900_000, early)
    after = {prepared.shard.job for prepared in lake.prepare()}
    assert len(before) > 60
    assert len(after - before) <= len(before) / 6


def test_large_objects_keep_their_cuts(lake: Lake) -> None:
    """What comes into one object moves the cuts of that object, and of few others."""
    for number in range(20):
        lake.put(f"o{number:02d}.jsonl", number * 1000, 250)
    before = {prepared.shard.job for prepared in lake.prepare()}
    lake.put("o00.jsonl", 500_000, 263)
    after = {prepared.shard.job for prepared in lake.prepare()}
    assert len(after - before) <= 8
    assert len(before) >= 50


def test_one_object_is_cut_into_full_shards(lake: Lake) -> None:
    """There is nothing before the cuts that could move them."""
    lake.put("a.jsonl", 0, 250)
    assert [prepared.shard.records for prepared in lake.prepare()] == [100, 100, 50]


@given(
    st.lists(st.integers(0, 230), min_size=1, max_size=8),
    st.integers(1, 120),
    st.integers(17, 9000),
    st.sampled_from(["sagemaker", "openai", "bedrock", "cohere"]),
)
def test_by_the_block_or_by_the_line_the_shards_are_the_same(
    sizes: list[int], max_records: int, max_bytes: int, name: str
) -> None:
    """Every record once, in order, within the limits, whatever a service makes of it."""
    lake = Lake()
    first = 0
    for number, size in enumerate([*sizes, 1]):
        lake.put(f"o{number}.jsonl", first, size)
        first += size
    limits = ShardLimits(max_records, max_bytes, 1000)
    fast, careful = lake.prepare(name, limits=limits), lake.prepare(name, limits=limits, fast=False)
    assert fast == careful
    texts = []
    for prepared in fast:
        lines = content(lake.objects, prepared.shard.input).splitlines()
        assert (
            len(lines) == prepared.shard.records == sum(source_range.records for source_range in prepared.source_ranges)
        )
        assert len(lines) <= max_records
        assert prepared.shard.bytes == sum(len(line) + 1 for line in lines)
        assert prepared.shard.bytes <= max_bytes or len(lines) == 1
        texts += [next(int(text) for text in re.findall(rb'"(\d{6})"', line)) for line in lines]
        if prepared.shard.source:
            kept = [json.loads(line) for line in content(lake.objects, prepared.shard.source).splitlines()]
            assert [row["record_id"] for row in kept] == [record_id(at) for at in range(len(lines))]
            assert [int(row["record"]["text"]) for row in kept] == texts[-len(lines) :]
    assert texts == list(range(first))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("most", [1, 99, 100, 101, 250])
def test_only_so_many_records_are_taken(lake: Lake, most: int, fast: bool) -> None:  # noqa: FBT001 - pytest gives it
    """The first ones, over objects and shards."""
    lake.put("a.jsonl", 0, 150)
    lake.put("b.jsonl", 150, 150)
    assert sum(prepared.shard.records for prepared in lake.prepare(at_most=most, fast=fast)) == most


def test_nothing_to_read_is_an_error_of_its_own(lake: Lake) -> None:
    """A pipeline may pass it by."""
    with pytest.raises(NoDocuments, match="no objects below this prefix"):
        lake.prepare()


def test_a_shard_ends_with_a_chosen_object_from_half_on() -> None:
    """Never before it is half full; with an object of a quarter or more, always from there on."""
    uris = [f"s3://b/{number}" for number in range(2000)]
    assert not any(ends_after(uri, fill=MIN_FILL - 0.01, share=0.3) for uri in uris)
    assert all(ends_after(uri, fill=MIN_FILL, share=0.25) for uri in uris)
    assert 60 < sum(ends_after(uri, fill=0.9, share=0.01) for uri in uris) < 100


LISTING = """\
2026-11-01 02:00:00     400000 docs/dt=2026-11-01/a.jsonl
2026-11-02 02:00:00     800000 docs/dt=2026-11-02/a.jsonl
2026-11-02 02:00:00     800000 docs/dt=2026-11-02/b.tmp
2026-11-02 02:00:00          5 other/a.jsonl
"""


def test_a_listing_says_how_many_shards_it_makes() -> None:
    """Those of the source, by the size of a record."""
    found = read_listing(LISTING, "s3://b/docs/", include=[], exclude=["*.tmp"])
    assert [item.size_bytes for item in found] == [400_000, 800_000]
    told = estimate(found, LIMITS, record_bytes=1000)
    assert (told.objects, told.bytes, told.records, told.shards) == (2, 1_200_000, 1200, 12)
    assert estimate(found, LIMITS, record_bytes=None).records is None


@pytest.mark.parametrize(
    ("text", "message"), [("hello\n", "line 1 is not a line of"), ("", "the listing has no object of s3://b/docs/")]
)
def test_what_is_no_listing_is_refused(text: str, message: str) -> None:
    """With its line."""
    with pytest.raises(ConfigError, match=message):
        read_listing(text, "s3://b/docs/", include=[], exclude=[])


@pytest.mark.parametrize(("count", "each"), [(500, 13), (20, 250), (3, 100), (7, 40), (1, 1)])
def test_the_estimate_is_what_prepare_does(lake: Lake, count: int, each: int) -> None:
    """Where records are of one size, it is exact."""
    for number in range(count):
        lake.put(f"o{number:04d}.jsonl", number * each, each)
    found: list[ObjectInfo] = list(lake.objects.list("s3://lake/"))
    assert estimate(found, LIMITS, record_bytes=found[0].size_bytes / each).shards == len(lake.prepare())
