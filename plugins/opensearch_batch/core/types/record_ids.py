"""Ids of records: the position in the shard, which identifies a record for service, repair and ingest."""

from __future__ import annotations

RECORD_ID = "record_id"
# The member next to the id: the record itself, or the service's output for it.
RECORD, OUTPUT = "record", "output"
# Amazon Bedrock requires record ids of eleven letters and digits.
_DIGITS = 10
# `record_id` as a bytes format of the position.
ID_FORMAT = b"r%%0%dd" % _DIGITS
# A line of a shard's record file, as a bytes format of position and record.
RECORD_LINE = b'{"%b":"%b","%b":%%b}\n' % (RECORD_ID.encode(), ID_FORMAT, RECORD.encode())


def record_id(position: int) -> str:
    """Return the id of the record at a position, counted from 0, of a shard."""
    return f"r{position:0{_DIGITS}d}"


def position_of(name: str | None) -> int | None:
    """Return the position of a record id, None if it is not one of this package."""
    if name is None or len(name) != _DIGITS + 1 or name[0] != "r" or not name[1:].isdecimal():
        return None
    return int(name[1:])
