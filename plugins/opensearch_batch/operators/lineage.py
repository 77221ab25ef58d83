"""Lineage: the datasets of a task for Airflow's OpenLineage provider, which is imported only if it asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperator

from opensearch_batch.core.types.datasets import RunDatasets

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import Dataset
    from openlineage.client.facet_v2 import RunFacet


class ReportsLineage(BaseOperator):
    """Base of the stages that report lineage: those that end in a worker, because only there Airflow calls listeners.

    `datasets` is set by `execute`; a task that fails before, or is skipped, reports none.
    """

    datasets = RunDatasets()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Dataset, RunFacet]:  # noqa: ARG002 - as the provider calls it
        """Return what this task read and wrote; the provider calls this for a failed task too."""
        from airflow.providers.openlineage.extractors import OperatorLineage
        from openlineage.client.event_v2 import Dataset

        return OperatorLineage(
            inputs=[Dataset(each.namespace, each.name) for each in self.datasets.inputs],
            outputs=[Dataset(each.namespace, each.name) for each in self.datasets.outputs],
        )
