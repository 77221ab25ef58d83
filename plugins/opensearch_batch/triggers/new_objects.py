"""Trigger that fires when objects of a source are added, changed or deleted, unless the source is then empty.

It lists the source at each poll or, with a queue of the bucket's events, after a message about the source.

The trigger compares the listing with the objects that a run last prepared. While they differ, it fires again from time
to time, so that no change is lost while the DAG is paused or if a process dies. The messages of a queue only cause a
listing; they are deleted when a run has prepared their objects. At worst a second run starts and finds the work done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.sharding.listing import SourceChange, list_source, source_change
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.hooks.aws import aws_client
from opensearch_batch.hooks.connections import AWS_CONN_ID
from opensearch_batch.hooks.job_handle import shared_object_storage
from opensearch_batch.hooks.shared_clients import shared_client
from opensearch_batch.services.aws import aws_errors

TRIGGER = "opensearch_batch.triggers.new_objects.NewObjectsTrigger"
# Seconds until the trigger fires again for the same objects. "new": no run has started for them. "started": a run is in
# progress or has failed.
REPEAT_AFTER_S = {"new": 60.0, "started": 3600.0}
# The maximum number of messages in one response of SQS.
MAX_MESSAGES = 10
MAX_RESPONSES = 100


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Key(msgspec.Struct, frozen=True):
    key: str


class _Event(msgspec.Struct, frozen=True):
    """The bucket and the object of an event."""

    bucket: _Named
    object: _Key


class _Record(msgspec.Struct, frozen=True):
    s3: _Event


class _Message(msgspec.Struct, frozen=True):
    """A message of SNS that wraps another one, of S3 with records, or of EventBridge with a detail."""

    wrapped: str | None = msgspec.field(name="Message", default=None)
    records: list[_Record] = msgspec.field(name="Records", default=[])
    detail: _Event | None = None

    def uris(self) -> Iterator[str]:
        """Yield the URIs of the objects."""
        if self.wrapped is not None:
            yield from uris_of(self.wrapped)
        for record in self.records:
            yield f"s3://{record.s3.bucket.name}/{unquote_plus(record.s3.object.key)}"
        if self.detail is not None:
            yield f"s3://{self.detail.bucket.name}/{self.detail.object.key}"


class NewObjectsTrigger(BaseEventTrigger):
    """Fires when the objects of a source differ from those that a run last prepared.

    The event names the source. The run prepares all of its objects; unchanged objects are not read again. With `sqs`,
    the URL of a queue that receives the bucket's events, the source is listed only after one.
    """

    def __init__(
        self,
        *,
        uri: str,
        work_prefix: str,
        pipeline: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        aws_conn_id: str = AWS_CONN_ID,
        poll_every_s: float = 60.0,
        sqs: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # untyped in Airflow
        self.uri = uri
        self.work_prefix = work_prefix
        self.pipeline = pipeline
        self.include = list(include)
        self.exclude = list(exclude)
        self.aws_conn_id = aws_conn_id
        self.poll_every_s = poll_every_s
        self.sqs = sqs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("uri", "work_prefix", "pipeline", "include", "exclude", "aws_conn_id", "poll_every_s", "sqs")
        return TRIGGER, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll forever; a BatchError is logged, and the next poll tries again."""
        fired_state, fired_at, is_first = "", 0.0, True
        while True:
            try:
                change, state = await asyncio.to_thread(self._poll, must_list=is_first)
            except BatchError as error:
                self.log.warning("%s", error)
                change, state = "unchanged", ""
            else:
                is_first = False
            if change != "unchanged" and (
                state != fired_state or time.monotonic() >= fired_at + REPEAT_AFTER_S[change]
            ):
                fired_state, fired_at = state, time.monotonic()
                yield TriggerEvent({"uri": self.uri})  # type: ignore[no-untyped-call] # untyped in Airflow
            await asyncio.sleep(self.poll_every_s)

    def _poll(self, *, must_list: bool) -> tuple[SourceChange, str]:
        """Compare the source with the state that a run last prepared; return the change, and a digest of the new state.

        With a queue, the source is listed only if there are messages about it, or if `must_list` is set: objects that
        are older than the queue have no message.
        """
        messages = self._receive() if self.sqs else []
        is_about_source = any(self._is_in_source(uri) for message in messages for uri in uris_of(message["Body"]))
        if self.sqs and not is_about_source and not must_list:
            self._delete(messages)
            return "unchanged", ""
        store = shared_object_storage(self.aws_conn_id)
        listing = list_source(store, self.uri, include=self.include, exclude=self.exclude)
        change = source_change(store, Layout(self.work_prefix, self.pipeline), listing)
        if change == "unchanged":
            self._delete(messages)
        return change, listing.digest

    def _receive(self) -> list[dict[str, Any]]:
        """Return up to 1,000 messages of the queue, so that a burst of uploads starts one run."""
        messages: list[dict[str, Any]] = []
        with self._queue_errors():
            for _ in range(MAX_RESPONSES):
                response = self._queue().receive_message(QueueUrl=self.sqs, MaxNumberOfMessages=MAX_MESSAGES)
                received = response.get("Messages", [])
                messages += received
                if not received:
                    break
        return messages

    def _delete(self, messages: Sequence[dict[str, Any]]) -> None:
        with self._queue_errors():
            for message in messages:
                self._queue().delete_message(QueueUrl=self.sqs, ReceiptHandle=message["ReceiptHandle"])

    def _queue_errors(self) -> AbstractContextManager[None]:
        return aws_errors(f"queue {self.sqs}", frozenset())

    def _queue(self) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
        return shared_client("sqs", self.aws_conn_id, lambda: aws_client("sqs", self.aws_conn_id))

    def _is_in_source(self, uri: str) -> bool:
        return SourceUri(self.uri, self.include, self.exclude).contains(uri)


def uris_of(message: str) -> Iterator[str]:
    """Yield the URIs of the objects that an S3 event names; the event may be wrapped by SNS or EventBridge.

    Source: Amazon S3, "Event message structure". Object keys are URL-encoded in S3 events, not in EventBridge events.
    Whoever may send to the queue may send anything: a message in no such format names no object.
    """
    try:
        yield from msgspec.json.decode(message, type=_Message).uris()
    except msgspec.DecodeError:
        return
