"""One listed object, and how its bytes are compressed."""

from __future__ import annotations

from typing import Literal

import msgspec

# ``automatic``: by the extension of the object's name.
Compression = Literal["none", "gzip", "snappy", "zstd", "automatic"]
OutputCompression = Literal["none", "gzip", "snappy"]


class ObjectInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One listed object: `etag` changes with its bytes, `modified` is when they last changed (epoch seconds)."""

    uri: str
    size_bytes: int
    etag: str
    modified: float = 0.0
