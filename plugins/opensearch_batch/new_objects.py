"""Tells Airflow when objects come to a source or change there: by listing it, or by the events of its bucket.

News that nobody could be told of is not lost: what was seen is noted, and an event's message deleted, only after the
news went out. At worst a run starts twice, and the second finds the work done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any
from urllib.parse import unquote_plus

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from opensearch_batch.awaited import shared
from opensearch_batch.core.errors import BatchError
from opensearch_batch.core.manifest import digest
from opensearch_batch.core.objects import wanted
from opensearch_batch.hooks import AWS_CONN_ID, aws_client, objects

TRIGGER = "opensearch_batch.new_objects.NewObjectsTrigger"
SEEN = "seen"
# Of a queue; more are fetched in the next round.
MESSAGES = 10
MAX_ROUNDS = 100


class NewObjectsTrigger(BaseEventTrigger):
    """Fires when the objects of a source are not those it last fired for.

    The event says which source. What a run then does is up to the objects: all of them are prepared, and those that
    are done cost nothing.

    Args:
        uri: S3 prefix, or an object.
        include, exclude: globs, as in `prepare`.
        aws_conn_id: the object storage, and the queue.
        poll_every_s: how often it is looked.
        sqs: URL of a queue that gets the bucket's events; the source is listed if None.
    """

    def __init__(
        self,
        *,
        uri: str,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        aws_conn_id: str = AWS_CONN_ID,
        poll_every_s: float = 60.0,
        sqs: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # Airflow's own
        self.uri = uri
        self.include = list(include)
        self.exclude = list(exclude)
        self.aws_conn_id = aws_conn_id
        self.poll_every_s = poll_every_s
        self.sqs = sqs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return class path and arguments."""
        names = ("uri", "include", "exclude", "aws_conn_id", "poll_every_s", "sqs")
        return TRIGGER, {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look again and again; a store that is away is looked at in the next round."""
        while True:
            try:
                look = self._events() if self.sqs else self._listing()
                async for event in look:
                    yield event
            except BatchError as error:
                self.log.warning("%s", error)
            await asyncio.sleep(self.poll_every_s)

    async def _listing(self) -> AsyncIterator[TriggerEvent]:
        now = await asyncio.to_thread(self._state)
        if now is None or now == await self._seen():
            return
        yield TriggerEvent({"uri": self.uri})  # type: ignore[no-untyped-call] # Airflow's own
        await self._note(now)

    def _state(self) -> str | None:
        """Return a digest of the objects that are there, None when there are none."""
        store = shared("aws", self.aws_conn_id, lambda: objects(self.aws_conn_id))
        found = [f"{item.uri} {item.etag}" for item in store.list(self.uri, include=self.include, exclude=self.exclude)]
        return digest(*found) if found else None

    async def _seen(self) -> Any:  # noqa: ANN401 - JSON
        store = self.asset_state_store
        return None if store is None else await store.aget(SEEN)

    async def _note(self, now: str) -> None:
        if self.asset_state_store is not None:
            await self.asset_state_store.aset(SEEN, now)

    async def _events(self) -> AsyncIterator[TriggerEvent]:
        messages = await asyncio.to_thread(self._received)
        if not messages:
            return
        if any(self._is_ours(uri) for message in messages for uri in uris_of(message["Body"])):
            yield TriggerEvent({"uri": self.uri})  # type: ignore[no-untyped-call] # as above
        await asyncio.to_thread(self._delete, messages)

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
        return shared("sqs", self.aws_conn_id, lambda: aws_client("sqs", self.aws_conn_id))

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
