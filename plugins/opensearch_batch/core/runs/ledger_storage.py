"""What the record ledger and the prediction store of a pipeline take on the object storage."""

from __future__ import annotations

import msgspec


class LedgerStorage(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes.

    Attributes:
        answers: the number of predictions in the store, in `segments` files with `answers_bytes`.
        open_shards: the shards whose jobs have, or may have, been submitted and were not read yet.
        scopes: the number of scopes of the ledger, whose heads and rows are `ledger_objects` with `ledger_bytes`.
        is_complete: False if the ledger has more objects than were listed; then its three numbers are lower bounds.
        is_shared: the prediction store is shared by the pipelines of the work prefix.
    """

    answers: int
    answers_bytes: int
    segments: int
    open_shards: int
    scopes: int
    ledger_objects: int
    ledger_bytes: int
    is_complete: bool = True
    is_shared: bool = False
