"""The names of the datasets that a run reads and writes, as OpenLineage defines them (docs/decisions/024)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec

# Where the fixed part of a path ends: at a wildcard of a source, or at an expression of a sink.
_VARIABLE = re.compile(r"[*?]|[$%]\{")


class DatasetName(msgspec.Struct, frozen=True):
    """A dataset: the namespace of its store, and its name there."""

    namespace: str
    name: str


class RunDatasets(msgspec.Struct, frozen=True):
    """The datasets that a run reads (`inputs`) and writes (`outputs`)."""

    inputs: list[DatasetName] = []
    outputs: list[DatasetName] = []


def objects_dataset(uri: str) -> DatasetName:
    """Return the dataset of an object, or of all objects below a prefix; for a glob, below its last fixed folder."""
    scheme, _, rest = uri.partition("://")
    bucket, _, path = rest.partition("/")
    if variable := _VARIABLE.search(path):
        path = path[: variable.start()].rpartition("/")[0]
    return DatasetName(f"{scheme}://{bucket}", path.strip("/") or "/")


def index_dataset(cluster_url: str, index: str) -> DatasetName:
    """Return the dataset of an index; the address of its cluster is the namespace."""
    return DatasetName(f"opensearch://{urlsplit(cluster_url).netloc}", index)
