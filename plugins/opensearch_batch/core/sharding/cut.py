"""Cuts the new and changed records of a run into shards. The cut depends on the records only, not on who reads them.

A shard with a job has records whose prediction has to be paid for; it is filled to the limits of a job, with one line
for each distinct content key: the line of the first record with this key. Records whose prediction another run has
already requested go to a shard of that run's job. Records whose prediction is stored go to shards of the same size
without a job, so that an ingest from the store spreads over as many tasks as a first load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from opensearch_batch.core.ledger.store_head import ABSENT, Located
from opensearch_batch.core.sharding.changed_records import ChangedRecords
from opensearch_batch.core.types.manifest import Shard
from opensearch_batch.core.types.shard_limits import ShardLimits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# The number in place of that of a shard.
NONE = -1


class CutOptions(NamedTuple):
    """How shards are cut.

    Args:
        limits: the limits of a shard.
        realtime_below: fewer distinct records to pay for are predicted in real time, whatever a job's minimum is.
        passthrough: each object that has a new content key is submitted unchanged.
        pays: False to leave records without a prediction to the next run.
    """

    limits: ShardLimits
    realtime_below: int = 0
    passthrough: bool = False
    pays: bool = True


class Cut(NamedTuple):
    """Shards, and what each record is in them, by position.

    Attributes:
        shards: the shards in the order of their first record. One that is paid for has `records`, but no job yet; if
            its `input` is set, it is an object that is submitted unchanged.
        numbers: the number of the shard that the record is staged in, `NONE` for one that is left to the next run.
        pays: the number of the shard whose job has a line for the record, else `NONE`.
        too_few: the number of records that are left because they are too few for a job.
    """

    shards: list[Shard]
    numbers: npt.NDArray[np.int32]
    pays: npt.NDArray[np.int32]
    too_few: int = 0

    def payers(self) -> npt.NDArray[np.int64]:
        """Return the positions of the records that are paid for, in the order of the shards and of their lines."""
        import numpy as np

        at = np.flatnonzero(self.pays != NONE)
        return at[np.argsort(self.pays[at], kind="stable")]


def cut_shards(
    records: ChangedRecords, located: Located, options: CutOptions, job_shard: Callable[[str, int], Shard]
) -> Cut:
    """Cut records whose keys were located.

    `job_shard` returns the shard of another run's job of a number of records; what it raises is raised.
    """
    import numpy as np

    wanted = records.is_changed & records.is_readable()
    draft = _Draft(len(wanted))
    is_absent = located.source == ABSENT
    if not options.passthrough:
        too_few = _cut_absent(draft, records, np.flatnonzero(wanted & is_absent), options)
    else:
        too_few = 0
        _submit_objects(draft, records, is_absent, options)
    others = wanted & (draft.numbers == NONE)
    stored = np.flatnonzero(others & (located.source >= 0))
    size = options.limits.max_records
    for start in range(0, len(stored), size):
        draft.add(Shard(""), stored[start : start + size])
    for source in np.unique(located.source[others & (located.source < ABSENT)]).tolist():
        job = located.shards[-2 - source]
        shard = job_shard(job, located.open[job].records)
        draft.add(shard, np.flatnonzero(others & (located.source == source)))
    return draft.cut(too_few)


def boundaries(line_bytes: npt.NDArray[np.int64], limits: ShardLimits) -> list[int]:
    """Return the positions at which shards end; the sizes of the lines include line breaks.

    A shard has at least one line, and at least `min_records`, whatever the limits are. The last one also gets the rest
    if that is too small for a job.
    """
    import numpy as np

    total, sizes = len(line_bytes), np.concatenate(([0], np.cumsum(line_bytes)))
    ends, start = list[int](), 0
    while start < total:
        fitting = int(np.searchsorted(sizes, sizes[start] + limits.max_bytes, side="right")) - 1
        end = max(min(start + limits.max_records, fitting), start + max(limits.min_records, 1))
        start = total if total - end < limits.min_records else end
        ends.append(start)
    return ends


def _cut_absent(draft: _Draft, records: ChangedRecords, at: npt.NDArray[np.int64], options: CutOptions) -> int:
    """Cut the records at these positions, whose keys are absent; return how many are too few for a job."""
    import numpy as np

    distinct, first, codes = np.unique(records.keys[at], return_index=True, return_inverse=True)
    is_realtime = 0 < len(distinct) < options.realtime_below
    limits = options.limits.in_real_time() if is_realtime else options.limits
    if not options.pays:
        return 0
    if len(distinct) < limits.min_records:
        return len(at)
    in_order = np.argsort(first)
    payers = at[first[in_order]]
    line_bytes = records.line_bytes[payers].astype(np.int64) + len(b"\n")
    ends = boundaries(line_bytes, limits)
    # The shard of each distinct key, by its code.
    shard_of = np.empty(len(distinct), np.int64)
    shard_of[in_order] = np.searchsorted(ends, np.arange(len(distinct)), side="right")
    by_shard = np.argsort(shard_of[codes], kind="stable")
    edges = np.searchsorted(shard_of[codes][by_shard], np.arange(len(ends) + 1)).tolist()
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        size = int(line_bytes[start:end].sum())
        shard = Shard("", records=end - start, bytes=size, realtime=is_realtime)
        draft.add(shard, at[by_shard[edges[number] : edges[number + 1]]], payers[start:end])
    return 0


def _submit_objects(
    draft: _Draft, records: ChangedRecords, is_absent: npt.NDArray[np.bool_], options: CutOptions
) -> None:
    """Submit the objects that have an absent key for which no object before is submitted."""
    import numpy as np

    codes = np.full(len(is_absent), NONE, np.int64)
    distinct, codes[is_absent] = np.unique(records.keys[is_absent], return_inverse=True)
    shard_of = np.full(len(distinct), NONE, np.int64)
    for item, start, end in zip(records.objects, records.starts, records.starts[1:], strict=False):
        at = np.arange(start, end)
        absent, changed = at[is_absent[at]], at[records.is_changed[at]]
        if not item.etag:
            continue
        if options.pays and (shard_of[codes[absent]] == NONE).any():
            shard = Shard("", input=item.uri, records=len(at), etag=item.etag)
            shard_of[codes[absent]] = draft.add(shard, changed, at)
        else:
            rest = changed[is_absent[changed]]
            rest = rest[shard_of[codes[rest]] != NONE]
            draft.stage(shard_of[codes[rest]], rest)


class _Draft:
    """Shards in any order."""

    def __init__(self, count: int) -> None:
        import numpy as np

        self.numbers = np.full(count, NONE, np.int64)
        self._pays = np.full(count, NONE, np.int64)
        self._shards: list[Shard] = []

    def add(self, shard: Shard, at: npt.NDArray[np.int64], payers: Sequence[int] | npt.NDArray[np.int64] = ()) -> int:
        """Add a shard with the records at some positions, and those that are paid for; return its number."""
        number = len(self._shards)
        self._shards.append(shard)
        self.numbers[at] = number
        self._pays[payers if len(payers) else []] = number
        return number

    def stage(self, numbers: npt.NDArray[np.int64], at: npt.NDArray[np.int64]) -> None:
        """Add the records at some positions to the shards with these numbers."""
        self.numbers[at] = numbers

    def cut(self, too_few: int) -> Cut:
        """Return the shards in the order of their first record."""
        import numpy as np

        count = len(self._shards)
        in_order = np.argsort(_first_of(count, self.numbers, self._pays), kind="stable")
        new = np.full(count + 1, NONE, np.int32)
        new[in_order] = np.arange(count)
        documents = np.bincount(self.numbers[self.numbers != NONE], minlength=count).tolist()
        shards = [
            replace(self._shards[old], id=f"{number:04d}", documents=documents[old])
            for number, old in enumerate(in_order.tolist())
        ]
        # The last one is for NONE.
        return Cut(shards, new[self.numbers], new[self._pays], too_few)


def _first_of(count: int, *numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the position of the first record of each shard."""
    import numpy as np

    first = np.full(count, np.iinfo(np.int64).max)
    for each in numbers:
        at = np.flatnonzero(each != NONE)
        np.minimum.at(first, each[at], at)
    return first
