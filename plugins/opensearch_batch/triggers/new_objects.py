"""Tells Airflow when objects come to a source or change there: by listing it, or by the events of its bucket.

What counts is what was prepared. As long as the source is not as a run last prepared it, there is news, and Airflow is
told again: if nobody listened (the DAG was paused, a process died), nothing is lost. A queue only says when to look;
its messages are deleted when a run has prepared what they were about. At worst a run starts twice, and the second finds
the work done.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.sharding.listing import News, list_source, news_of
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.objects import wanted
from opensearch_batch.hooks.aws import aws_client
from opensearch_batch.hooks.connections import AWS_CONN_ID
from opensearch_batch.hooks.job_handle import shared_object_storage
from opensearch_batch.hooks.shared_clients import shared_client

TRIGGER = "opensearch_batch.triggers.new_objects.NewObjectsTrigger"
# Airflow is told again after so long: soon where nobody listened, later where a run is at it, or could not do it.
AGAIN_S = {"unheard": 60.0, "begun": 3600.0}
# Of a queue; more are fetched in the next round.
MESSAGES = 10
MAX_ROUNDS = 100


class NewObjectsTrigger(BaseEventTrigger):
    """Fires when a source is not as a run last prepared it.

    The event says which source. What a run then does is up to the objects: all of them are prepared, and those that
    are done cost nothing.

    Args:
        uri: S3 prefix, or an object.
        work: the pipeline's work prefix.
        pipeline: its name.
        include: globs, as in `prepare`.
        exclude: globs, as in `prepare`.
        aws_conn_id: the object storage, and the queue.
        poll_every_s: how often it is looked.
        sqs: URL of a queue that gets the bucket's events; the source is listed only then.
    """

    def __init__(
        self,
        *,
        uri: str,
        work: str,
        pipeline: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        aws_conn_id: str = AWS_CONN_ID,
        poll_every_s: float = 60.0,
        sqs: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's own
        self.uri = uri
        self.work = work
        self.pipeline = pipeline
        self.include = list(include)
        self.exclude = list(exclude)
        self.aws_conn_id = aws_conn_id
        self.poll_every_s = poll_every_s
        self.sqs = sqs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("uri", "work", "pipeline", "include", "exclude", "aws_conn_id", "poll_every_s", "sqs")
        return TRIGGER, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; a store that is away is looked at in the next round."""
        told, told_at, first = "", 0.0, True
        while True:
            try:
                news, state = await asyncio.to_thread(self._look, always=first)
            except BatchError as error:
                self.log.warning("%s", error)
                news, state = "none", ""
            else:
                first = False
            if news != "none" and (state != told or time.monotonic() >= told_at + AGAIN_S[news]):
                told, told_at = state, time.monotonic()
                yield TriggerEvent({"uri": self.uri})  # type: ignore[no-untyped-call] # Airflow's own
            await asyncio.sleep(self.poll_every_s)

    def _look(self, *, always: bool) -> tuple[News, str]:
        """Return what runs know of the source as it is now, and a digest of that.

        With a queue, it is looked at when there are messages about it, or `always`: nobody keeps messages of what was
        there before the queue was.
        """
        messages = self._received() if self.sqs else []
        ours = any(self._is_ours(uri) for message in messages for uri in uris_of(message["Body"]))
        if self.sqs and not ours and not always:
            self._delete(messages)
            return "none", ""
        store = shared_object_storage(self.aws_conn_id)
        found = list_source(store, self.uri, include=self.include, exclude=self.exclude)
        news = news_of(store, Layout(self.work, self.pipeline), found)
        if news == "none":
            self._delete(messages)
        return news, found.digest

    def _received(self) -> list[dict[str, Any]]:
        """Return what lies in the queue; a burst of uploads is one run."""
        messages: list[dict[str, Any]] = []
        for _ in range(MAX_ROUNDS):
            answer = self._queue().receive_message(QueueUrl=self.sqs, MaxNumberOfMessages=MESSAGES)
            found = answer.get("Messages", [])
            messages += found
            if not found:
                break
        return messages

    def _delete(self, messages: Sequence[dict[str, Any]]) -> None:
        for message in messages:
            self._queue().delete_message(QueueUrl=self.sqs, ReceiptHandle=message["ReceiptHandle"])

    def _queue(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        return shared_client("sqs", self.aws_conn_id, lambda: aws_client("sqs", self.aws_conn_id))

    def _is_ours(self, uri: str) -> bool:
        folder = self.uri[: self.uri.rfind("/") + 1]
        return uri.startswith(self.uri) and wanted(uri[len(folder) :], self.include, self.exclude)


def uris_of(message: str) -> Iterator[str]:
    """Yield the objects that a message of S3 tells of, also one that came through SNS or EventBridge.

    Source: Amazon S3, "Event message structure"; keys in it are URL-encoded, those of EventBridge are not.
    """
    try:
        body = json.loads(message)
    except ValueError:
        return
    if isinstance(body, dict) and isinstance(body.get("Message"), str):
        yield from uris_of(body["Message"])
        return
    if not isinstance(body, dict):
        return
    for record in body.get("Records") or ():
        told = record.get("s3", {})
        yield f"s3://{told.get('bucket', {}).get('name')}/{unquote_plus(told.get('object', {}).get('key', ''))}"
    detail = body.get("detail")
    if isinstance(detail, dict) and "bucket" in detail and "object" in detail:
        yield f"s3://{detail['bucket'].get('name')}/{detail['object'].get('key')}"
