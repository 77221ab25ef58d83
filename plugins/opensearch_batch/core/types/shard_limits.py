"""Limits of a shard."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from opensearch_batch.core.types.rows import RowLimit

# The maximum number of records of a shard that is predicted in real time: one task sends them one after another.
REALTIME_RECORDS = 100


class ShardLimits(msgspec.Struct, frozen=True):
    """The limits of a shard, of one record, and the minimum number of records of a job."""

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1

    def exceeded_by(self, records: int, size_bytes: int) -> bool:
        """Return whether a shard exceeds these limits by more than the `min_records` that the last shard may add."""
        least = self.min_records
        if records <= least:
            return False
        return records >= self.max_records + least or size_bytes * (1 - least / records) >= self.max_bytes

    def in_real_time(self) -> ShardLimits:
        """Return the limits of a shard that is predicted in real time, for which a job's minimum does not apply."""
        return replace(self, max_records=min(self.max_records, REALTIME_RECORDS), min_records=1)

    @property
    def row_limit(self) -> RowLimit:
        """The maximum size of a record, and the reason for rejecting a longer one."""
        return RowLimit(self.max_record_bytes, f"longer than {self.max_record_bytes} bytes, the limit of the service")
