"""What the stages of a Data Prepper pipeline share: they know a file and a pipeline's name, and all else by these."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.file_connections import SOURCE, file_conn_id
from opensearch_batch.hooks.opensearch import OpenSearchMLHook

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline
    from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest


class DataPrepperOperator(BaseOperator):
    """A stage of a Data Prepper pipeline.

    Args:
        file: the pipeline's file.
        pipeline: its name there.
    """

    def __init__(self, *, file: str, pipeline: str, **kwargs: Any) -> None:  # noqa: ANN401 - BaseOperator's own arguments
        super().__init__(**kwargs)
        self.file = file
        self.pipeline = pipeline

    def compiled(self) -> CompiledPipeline:
        """Read the pipeline from its file, as it is now."""
        from opensearch_batch.core.data_prepper.compiled_pipeline import CompiledPipeline

        return CompiledPipeline.load(Path(self.file), self.pipeline)

    def store(self, *keys: str | int) -> S3Objects:
        """Return the store at a place of the file; without keys, the source's."""
        return object_storage(self._place(*(keys or (SOURCE,))))

    def hook(self, *keys: str | int) -> OpenSearchMLHook:
        """Return the cluster at a place of the file."""
        return OpenSearchMLHook(self._place(*keys))

    def cluster(self, number: int) -> Cluster:
        """Return the cluster of a sink."""
        return self.hook("sink", number).cluster

    def work_items(self, compiled: CompiledPipeline, run_key: str, at: datetime) -> WorkItemIngest:
        """Return what brings work items of a run into the sinks."""
        from opensearch_batch.core.data_prepper.work_item_ingest import WorkItemIngest
        from opensearch_batch.services.registry import row_error

        def target(number: int, name: str) -> S3Objects:
            return self.store("sink", number, name)

        return WorkItemIngest(
            compiled, self.store(), self.cluster, target, row_error=row_error(), run_key=run_key, at=at
        )

    def _place(self, *keys: str | int) -> str:
        return file_conn_id(Path(self.file), self.pipeline, *keys)
