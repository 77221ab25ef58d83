"""replay: the dead letters of a run once more, after a fix; those that fail again stay, with their new reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.account import QUEUE_FILE, Queue
from opensearch_batch.core.ingest.replay import replay
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.operators.base import errors_end_the_task
from opensearch_batch.services.registry import row_error


class OpenSearchReplayOperator(BaseOperator):
    """Send the dead letters of a queue again.

    Returns ``{queue, index, read, indexed, unchanged, dead_letters}``; the last is the number of those that stayed.

    Args:
        dead_letters: the queue: the location that a report gives under this name.
        field_map: a mended field map, in place of the one they were made with; the run's param `field_map` if None.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage of the queue.

    Raises:
        AirflowFailException: there is no such queue, or map or index are wrong.
        RetriableError: a server was away; the retry sends the same ids.
    """

    template_fields = ("dead_letters", "field_map", "opensearch_conn_id", "aws_conn_id")
    ui_color = "#fef7e0"

    def __init__(
        self,
        *,
        dead_letters: str,
        field_map: Mapping[str, Any] | None = None,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.dead_letters = dead_letters
        self.field_map = field_map
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id

    def execute(self, context: Any) -> dict[str, Any]:  # noqa: ANN401 - Airflow's context
        """Send them."""
        field_map = self.field_map or context["params"].get("field_map")
        with errors_end_the_task():
            store = object_storage(self.aws_conn_id)
            report = replay(
                self.dead_letters,
                store,
                OpenSearchMLHook(self.opensearch_conn_id).cluster,
                request=mended(store, self.dead_letters, field_map) if field_map else None,
                row_error=row_error(),
                on_progress=lambda so_far: self.log.info("%s", so_far),
            )
        self.log.info("%s", report)
        found: dict[str, Any] = msgspec.to_builtins(report)
        return found


def mended(store: Objects, queue: str, field_map: Mapping[str, Any]) -> IngestRequest:
    """Return the request of a queue with another field map.

    Raises:
        ConfigError: the queue does not say what its request was.
    """
    uri = f"{queue.rstrip('/')}/{QUEUE_FILE}"
    stored = store.read(uri)
    if stored is None:
        raise ConfigError(f"{uri}: no such queue; give the location that a report named as dead_letters")
    about = msgspec.json.decode(stored.content, type=Queue)
    return msgspec.structs.replace(about.request, field_map=dict(field_map))
