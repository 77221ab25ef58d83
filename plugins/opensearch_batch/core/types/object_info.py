"""An object of a listing, and the names of compressions."""

from __future__ import annotations

from typing import Literal

import msgspec

# ``automatic`` selects the compression by the file extension of the object.
Compression = Literal["none", "gzip", "snappy", "zstd", "automatic"]
OutputCompression = Literal["none", "gzip", "snappy"]


class ObjectInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object of a listing; `etag` changes with its content, last at `modified` (epoch seconds)."""

    uri: str
    size_bytes: int
    etag: str
    modified: float = 0.0
