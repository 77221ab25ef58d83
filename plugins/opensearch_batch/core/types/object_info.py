"""One listed object, and how its bytes are compressed."""

from __future__ import annotations

from typing import Literal

import msgspec

# How an object's bytes are packed; ``automatic`` says that its name's ending tells.
Compression = Literal["none", "gzip", "snappy", "zstd", "automatic"]


class ObjectInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """One listed object; `etag` changes when its bytes do. `modified` is when they last did, in epoch seconds."""

    uri: str
    size_bytes: int
    etag: str
    modified: float = 0.0
