"""The cut puts each record into one shard, within the limits, whatever the sizes are."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.ledger.key_index import keys_of
from opensearch_batch.core.ledger.store_head import Located, OpenShard, StoreHead
from opensearch_batch.core.sharding.changed_records import ChangedRecords
from opensearch_batch.core.sharding.cut import NONE, CutOptions, boundaries, cut_shards
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.object_info import ObjectInfo
from opensearch_batch.core.types.shard_limits import ShardLimits
from tests.examples import examples

OPEN = {"job-a": OpenShard("f", 0, 7), "job-b": OpenShard("f", 1, 8)}
limits = st.builds(
    ShardLimits,
    max_records=st.integers(1, 6),
    max_bytes=st.integers(1, 60),
    max_record_bytes=st.just(1_000),
    min_records=st.integers(1, 4),
)
# Key, where its prediction is, and whether the record changed.
rows = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=30)
sources = st.lists(st.sampled_from([0, 1, -1, -1, -1, -2, -3]), min_size=10, max_size=10)
sizes = st.lists(st.integers(1, 40), min_size=10, max_size=10)


def one_by_one(line_bytes: list[int], limit: ShardLimits) -> list[int]:
    """Cut as a process does that adds one line after the other."""
    ends, count, size, total = list[int](), 0, 0, len(line_bytes)
    for at, each in enumerate(line_bytes):
        is_full = count >= limit.max_records or size + each > limit.max_bytes
        if count and is_full and min(count, total - at) >= limit.min_records:
            ends.append(at)
            count = size = 0
        count, size = count + 1, size + each
    return [*ends, total] if total else []


@given(line_bytes=st.lists(st.integers(1, 40), max_size=30), limit=limits)
@settings(max_examples=examples(300), deadline=None)
def test_shards_end_where_the_next_line_does_not_fit(line_bytes: list[int], limit: ShardLimits) -> None:
    """Unless the shard, or the rest, is too small for a job."""
    assert boundaries(np.array(line_bytes, np.int64), limit) == one_by_one(line_bytes, limit)


@given(
    found=rows,
    source=sources,
    size=sizes,
    limit=limits,
    edges=st.sets(st.integers(1, 29), max_size=3),
    options=st.fixed_dictionaries(
        {"passthrough": st.booleans(), "pays": st.booleans(), "realtime_below": st.sampled_from([0, 3])}
    ),
)
@settings(max_examples=examples(300), deadline=None)
def test_each_record_is_in_the_shard_of_its_key(
    *,
    found: list[tuple[int, bool]],
    source: list[int],
    size: list[int],
    limit: ShardLimits,
    edges: set[int],
    options: dict[str, Any],
) -> None:
    """Each absent key is paid for once, by its first record; nothing is staged twice."""
    starts = [0, *sorted(edge for edge in edges if edge < len(found)), len(found)]
    keys = keys_of(b"%016d" % key for key, _ in found)
    objects = [ObjectInfo(f"o{number}", 1, "" if number == 2 else "e") for number in range(len(starts) - 1)]
    changed = np.array([options["passthrough"] or is_changed for _, is_changed in found])
    records = ChangedRecords(
        objects,
        np.array(starts),
        np.arange(1, len(found) + 1, dtype=np.uint32),
        keys,
        np.array([size[key] for key, _ in found], np.uint32),
        changed,
    )
    located = Located(keys, StoreHead(open=OPEN))
    located.source[:] = [source[key] for key, _ in found]
    located.segments = ["s0", "s1"]
    cut = cut_shards(records, located, CutOptions(limit, **options), lambda job, count: Shard("", job, records=count))
    readable = records.is_readable()
    assert (cut.numbers[~(changed & readable)] == NONE).all()
    assert [shard.id for shard in cut.shards] == [f"{number:04d}" for number in range(len(cut.shards))]
    payers = cut.payers()
    for number, shard in enumerate(cut.shards):
        at = np.flatnonzero(cut.numbers == number)
        assert shard.documents == len(at)
        lines = payers[cut.pays[payers] == number]
        if shard.job:
            assert shard.records == OPEN[shard.job].records
            assert {source[found[each][0]] for each in at} == {-2 - sorted(OPEN).index(shard.job)}
        elif shard.input:
            assert shard.records == len(lines)
        elif shard.records:
            assert shard.records == len(lines) == len({found[each][0] for each in at})
            assert lines.tolist() == sorted(lines.tolist())
            assert shard.bytes == sum(size[found[each][0]] + 1 for each in lines)
        else:
            assert {source[found[each][0]] >= 0 for each in at} == {True}
            assert len(at) <= limit.max_records
    absent = {key for at, (key, _) in enumerate(found) if source[key] == -1 and changed[at] and readable[at]}
    paid = {found[at][0] for at in payers} & absent
    if not options["passthrough"]:
        assert paid == (absent if options["pays"] and not cut.too_few else set())
        assert len(payers) == len(paid)
        left = np.flatnonzero(changed & readable & (cut.numbers == NONE))
        assert {found[at][0] for at in left} == absent - paid
    elif options["pays"]:
        assert paid == absent
