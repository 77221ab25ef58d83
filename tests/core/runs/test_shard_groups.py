"""Groups of a run's shards: each shard is in one, and a cleared run keeps as many."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.runs.shard_groups import (
    MAX_SHARDS,
    MIN_DOCUMENTS,
    chunks,
    group_count,
    grouped,
    with_empty_groups,
)
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.manifest import Shard, ShardGroup
from tests.core.memory_objects import MemoryObjects
from tests.manifests import manifest_of

URI = "s3://w/p/run/manifest.json"


def shards_of(jobs: int, stored: int, documents: int = 10_000) -> list[Shard]:
    """Return shards with a job, and others."""
    with_job = [Shard(f"j{number}", "job", records=documents - 1, documents=documents) for number in range(jobs)]
    return [*with_job, *[Shard(f"s{number}", documents=documents) for number in range(stored)]]


@given(
    jobs=st.integers(0, 3_000),
    stored=st.integers(0, 3_000),
    at_most=st.integers(2, 1_024),
    documents=st.integers(1, 50_000),
)
def test_each_shard_is_in_one_group_of_its_kind(jobs: int, stored: int, at_most: int, documents: int) -> None:
    """No group is much larger than others of its kind, and none is small without need."""
    shards = shards_of(jobs, stored, documents)
    groups = grouped(shards, at_most=at_most)
    assert [shard for group in groups for shard in group.shards] == shards
    assert len(groups) <= at_most
    for kind in (True, False):
        of_kind = [group for group in groups if bool(group.shards[0].job) is kind]
        sizes = {len(group.shards) for group in of_kind}
        assert not sizes or max(sizes) - min(sizes) <= 1
        is_large = any(len(group.shards) > MAX_SHARDS for group in of_kind)
        assert not is_large or len(groups) >= at_most - 1
        is_small = any(2 * group.documents < MIN_DOCUMENTS and 2 * len(group.shards) < MAX_SHARDS for group in of_kind)
        assert not is_small or len(of_kind) == 1
    assert all(len({bool(shard.job) for shard in group.shards}) == 1 for group in groups)


def test_a_group_is_named_after_its_shards() -> None:
    """Airflow shows the name and the numbers instead of the index of a mapped task."""
    one, several = grouped(shards_of(3, 0), at_most=2)
    assert (one.id, one.records, one.documents) == ("j0", 9_999, 10_000)
    assert (several.id, several.records, several.documents) == ("j1 to j2", 19_998, 20_000)


@pytest.mark.parametrize(
    ("jobs", "documents", "groups", "sizes"),
    [
        (0, 1, 0, set()),
        (4, 500, 1, {4}),
        (20, 500, 2, {10}),
        (20, 10_000, 20, {1}),
        (2_500, 10, 40, {62, 63}),
        (2_500, 10_000, 128, {19, 20}),
    ],
)
def test_tasks_are_sized_by_work(jobs: int, documents: int, groups: int, sizes: set[int]) -> None:
    """Small shards share a task, and Airflow maps over at most 1,024 values by default."""
    found = grouped(shards_of(jobs, 0, documents))
    assert (len(found), {len(group.shards) for group in found}) == (groups, sizes)


def test_chunks_of_nothing() -> None:
    """There are none."""
    assert chunks([], at_most=4) == []


def test_a_run_keeps_as_many_groups_as_an_attempt_ever_had() -> None:
    """Three groups, then one, then none, then two; a run without a manifest has none."""
    objects = MemoryObjects()
    assert with_empty_groups([], group_count(objects, URI)) == []
    for count in (3, 1, 2):
        groups = grouped(shards_of(count, 0))
        save(objects, URI, manifest_of(mapped=max(count, group_count(objects, URI))))
        assert with_empty_groups(groups, group_count(objects, URI)) == [*groups, *[ShardGroup()] * (3 - count)]
        assert with_empty_groups([], group_count(objects, URI)) == [ShardGroup()] * 3
