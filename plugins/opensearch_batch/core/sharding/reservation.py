"""Cuts shards while the prediction store reserves the keys that they pay for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from opensearch_batch.core.errors import AnswersUnusable
from opensearch_batch.core.ledger.key_index import keys_of
from opensearch_batch.core.ledger.predictions import NewShard, PredictionStore
from opensearch_batch.core.ledger.store_head import Located, StoreHead
from opensearch_batch.core.sharding.changed_records import ChangedObject
from opensearch_batch.core.sharding.cut import ShardCut
from opensearch_batch.core.sharding.record_reader import RecordReader


def reserved_cut(
    store: PredictionStore,
    reader: RecordReader,
    changed: Sequence[ChangedObject],
    new_cut: Callable[[Located], ShardCut],
    *,
    force: bool = False,
    writes: bool = True,
) -> tuple[ShardCut, list[str]]:
    """Return the cut of records, and the errors of damaged files of the store, whose answers are paid for again.

    The records are read again if another run reserves some of their keys first. With `force`, all keys are paid for.
    """
    keys, cuts, dropped = b"".join(each.keys.tobytes() for each in changed), list[ShardCut](), list[str]()

    def cut(located: Located) -> list[NewShard]:
        cuts[:] = [new_cut(located)]
        return cuts[0].run(reader, changed)

    while True:
        try:
            if writes and keys:
                store.reserve(keys, cut, force=force)
            else:
                cut(Located(keys_of(keys), StoreHead()) if force else store.lookup(keys))
        except AnswersUnusable as error:
            if not writes:
                raise
            store.drop(error.name)
            dropped.append(str(error))
        else:
            return cuts[0], dropped
