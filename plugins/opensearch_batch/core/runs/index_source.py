"""The index that a pipeline reads, and the rules that keep a run from replacing or deleting the user's documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.runs.index_objects import IndexObjects, IndexSource
from opensearch_batch.core.transform.json_path import source_fields


class SourceIndex(msgspec.Struct, frozen=True):
    """The index of a pipeline file; with `in_place`, predictions are written into its documents.

    `conn_id` is the connection of its cluster; `predictions` are the fields to which they are written. `query` and
    `version_field` are as in the file.
    """

    conn_id: str
    index: str
    in_place: bool = False
    predictions: Sequence[str] = ()
    query: dict[str, Any] | None = None
    version_field: str | None = None

    def objects(self, cluster: Cluster, uri: str, inputs: Sequence[str]) -> IndexObjects:
        """Return the documents as objects; of a document that is updated in place, only what the model reads."""
        source = IndexSource(self.index, self.query, version_field=self.version_field)
        if self.in_place:
            fields = source_fields(inputs)
            source = msgspec.structs.replace(source, fields=fields, predictions=self.predictions)
        return IndexObjects(cluster, source, uri)

    def check_run(self, *, reads_own_source: bool, index: str) -> None:
        """Raise ConfigError if a run of a pipeline that writes in place has another source or index."""
        if self.in_place and not (reads_own_source and index == self.index):
            raise ConfigError(
                f"this pipeline writes into the documents of {self.index} that it reads, so a run has neither another "
                "source nor another index; correct the documents in the index, and the next run reads them again"
            )

    def check_target(self, *, is_source: bool, index: str) -> None:
        """Raise ConfigError if the index to write is the source, by whatever name, unless it is updated in place."""
        if is_source != self.in_place:
            cause = "is the source index" if is_source else "is not the source index"
            raise ConfigError(
                f"index {index} {cause} {self.index}, so its documents "
                f"{'would be replaced' if is_source else 'cannot be updated in place'}; write one name as source.index "
                "and ingest.index, and one connection, to update documents in place; or name another index"
            )
