"""Limits of a shard."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.types.rows import RowLimit


class ShardLimits(msgspec.Struct, frozen=True):
    """The limits of a shard, of one record, and the minimum number of records of a job."""

    max_records: int
    max_bytes: int
    max_record_bytes: int
    min_records: int = 1

    @property
    def row_limit(self) -> RowLimit:
        """The maximum size of a record, and the reason for rejecting a longer one."""
        return RowLimit(self.max_record_bytes, f"longer than {self.max_record_bytes} bytes, the limit of the service")
