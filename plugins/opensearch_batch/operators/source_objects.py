"""The objects of a pipeline's source: those of the object storage, or the documents of an index as objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

from opensearch_batch.core.runs.index_objects import IndexObjects
from opensearch_batch.core.runs.index_source import SourceIndex
from opensearch_batch.core.sharding.listing import INDEX_SCHEME
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.datasets import DatasetName, objects_dataset
from opensearch_batch.hooks.opensearch import OpenSearchMLHook


class SourceObjects(NamedTuple):
    """The store of a source and of all files of a run.

    `settings` are those of a pipeline that reads an index. `blocks` are its documents, None if a run replays dead
    letters.
    """

    store: Objects
    settings: SourceIndex | None = None
    blocks: IndexObjects | None = None

    @property
    def in_place(self) -> bool:
        """Whether the run updates the documents that it reads."""
        return self.settings is not None and self.settings.in_place

    def dataset(self, uri: str) -> DatasetName:
        """Return the dataset of the source with this URI."""
        return objects_dataset(uri) if self.blocks is None else self.blocks.dataset

    def check_target(self, name: str, uuid: str) -> None:
        """Raise ConfigError if a run would replace the documents that it reads."""
        if self.settings is not None and self.blocks is not None:
            self.settings.check_target(is_source=uuid == self.blocks.uuid, index=name)


@contextmanager
def source_objects(
    store: Objects, settings: Mapping[str, Any] | None, uri: str, *, index: str, inputs: Sequence[str]
) -> Iterator[SourceObjects]:
    """Open the source of a run that writes to `index`; the point in time of a source index is closed at the end.

    `settings` are those of a `SourceIndex`. Raise ConfigError if the run must not write to that index.
    """
    source = None if settings is None else msgspec.convert(settings, SourceIndex)
    reads_index = uri.startswith(f"{INDEX_SCHEME}://")
    if source is not None:
        source.check_run(reads_own_source=reads_index, index=index)
    if source is None or not reads_index:
        yield SourceObjects(store, source)
        return
    with source.objects(OpenSearchMLHook(source.conn_id).cluster, uri, inputs) as blocks:
        stores = Stores({"s3": Scheme(lambda: store), INDEX_SCHEME: Scheme(lambda: blocks)})
        yield SourceObjects(stores, source, blocks)
