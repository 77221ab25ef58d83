"""Typed values stored as JSON documents."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import Manifest


def save(objects: Objects, uri: str, value: msgspec.Struct) -> None:
    """Write a typed value as JSON, indented for people."""
    objects.write(uri, msgspec.json.format(msgspec.json.encode(value), indent=1))


def load_manifest(objects: Objects, uri: str) -> Manifest:
    """Read a run's manifest.

    Raises:
        ConfigError: it is not there.
    """
    stored = objects.read(uri)
    if stored is None:
        raise ConfigError(f"{uri}: no manifest; clear prepare to write it")
    return msgspec.json.decode(stored.content, type=Manifest)
