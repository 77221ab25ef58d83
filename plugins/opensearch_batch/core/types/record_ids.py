"""Record ids. An id is derived from the position of the record in its shard."""

from __future__ import annotations

RECORD_ID = "record_id"
# In addition to its id, a line has one member: the record, or the service's output for the record.
RECORD, OUTPUT = "record", "output"
# Amazon Bedrock requires record ids of eleven letters and digits.
_DIGITS = 10


def record_id(position: int) -> str:
    """Return the id of the record at a position in a shard, counted from 0."""
    return f"r{position:0{_DIGITS}d}"


def position_of(name: str | None) -> int | None:
    """Return the position in a record id, or None if `record_id` did not create the id."""
    if name is None or len(name) != _DIGITS + 1 or name[0] != "r" or not name[1:].isdecimal():
        return None
    return int(name[1:])
