"""Classes of records: how a record differs from the ledger's row with its id, and which deletion follows from it."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ledger.rows import DOCUMENT_STATES, RecordState, are_any_of
from opensearch_batch.core.types.counts import MAX_REMOVED, MIN_REMOVED, exceeds

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# The objects that a remark names.
SHOWN_OBJECTS = 3


class RecordClass(enum.IntEnum):
    """How a record differs from what the ledger has for its id.

    new: no document has its id. input_changed: what the model reads changed. other_changed: other fields or the
    routing changed, or the document has to be written again. unchanged: nothing changed, in whatever object it was.
    duplicate: another record with its id wins. tombstone: it deletes the document with its id. kept: it was not read;
    its row in the ledger is the same as before. rejected: it is a dead letter of `prepare`.
    """

    NEW = 0
    INPUT_CHANGED = 1
    OTHER_CHANGED = 2
    UNCHANGED = 3
    DUPLICATE = 4
    TOMBSTONE = 5
    KEPT = 6
    REJECTED = 7


WRITTEN = (RecordClass.NEW, RecordClass.INPUT_CHANGED, RecordClass.OTHER_CHANGED)
COUNTED = (*WRITTEN, RecordClass.UNCHANGED, RecordClass.TOMBSTONE)


class Deletion(enum.IntEnum):
    """Why a document is deleted: no object has its record, its record is a tombstone, or its routing changed."""

    ABSENT = 1
    TOMBSTONE = 2
    ROUTING = 3


class DiffCounts(msgspec.Struct):
    """Counts of a diff.

    The first six count records that were read, each in one class; `promoted` of them are in objects that did not
    change, where their rows were duplicates. `removed` counts ids that had a document and have none now,
    `removed_by_tombstone` of them because of a tombstone. `demoted` rows of unchanged objects became duplicates.
    `retained` rows are of records that left their object in append mode, or an object with unreadable rows. `before`
    counts the documents of the ledger before the diff: those `kept` and those `removed`.
    """

    new: int = 0
    input_changed: int = 0
    other_changed: int = 0
    unchanged: int = 0
    duplicate: int = 0
    tombstone: int = 0
    removed: int = 0
    removed_by_tombstone: int = 0
    promoted: int = 0
    demoted: int = 0
    retained: int = 0
    kept: int = 0
    before: int = 0

    def count(self, compared: Compared) -> None:
        """Count compared records."""
        import numpy as np

        counts = np.bincount(compared.classes, minlength=len(RecordClass)).tolist()
        for kind in COUNTED:
            setattr(self, kind.name.lower(), getattr(self, kind.name.lower()) + counts[kind])
        removed = int((compared.had_document & (compared.classes == RecordClass.TOMBSTONE)).sum())
        self.removed += removed
        self.removed_by_tombstone += removed
        self.kept += int(compared.had_document.sum()) - removed


class Compared(NamedTuple):
    """The result of a comparison, row by row: class, version and state of the row, and the deletion (0: none)."""

    classes: npt.NDArray[np.uint8]
    versions: npt.NDArray[np.int64]
    states: npt.NDArray[np.uint8]
    deletions: npt.NDArray[np.uint8]
    had_document: npt.NDArray[np.bool_]


def compare(old: pa.Table, new: pa.Table, stale: npt.NDArray[np.bool_]) -> Compared:
    """Compare rows of records with the ledger's rows of the same ids; `stale` documents are never unchanged."""
    import numpy as np

    before, after = old["state"].to_numpy(), candidate_states(new["state"].to_numpy())
    old_versions = old["version"].to_numpy()
    same_keys = same_lists(old["content_keys"], new["content_keys"])
    same_routing = same_values(old["routing"], new["routing"])
    same = same_keys & same_routing & same_values(old["record_hash"], new["record_hash"])
    pending, tombstone = before == RecordState.PENDING, after == RecordState.TOMBSTONE
    classes = np.where(same_keys, RecordClass.OTHER_CHANGED, RecordClass.INPUT_CHANGED).astype(np.uint8)
    lost = lost_predictions(before, new["state"].to_numpy())
    classes[same & ~stale & ~pending & ~lost] = RecordClass.UNCHANGED
    classes[(before == RecordState.TOMBSTONE) | (pending & (old_versions == 0))] = RecordClass.NEW
    classes[tombstone] = RecordClass.TOMBSTONE
    classes[tombstone & ~stale & (before == RecordState.TOMBSTONE)] = RecordClass.UNCHANGED
    is_unchanged, is_rejected = classes == RecordClass.UNCHANGED, are_rejected(new)
    classes[is_rejected] = RecordClass.REJECTED
    states = np.where(is_unchanged, before, after)
    states[is_rejected] = RecordState.DEAD
    # The version of a pending row tells whether there is a document; after a tombstone there is none.
    versions = np.where(is_unchanged | (before != RecordState.TOMBSTONE), old_versions, 0)
    had_document = are_any_of(before, DOCUMENT_STATES)
    deletions = np.zeros(len(classes), np.uint8)
    deletions[~same_routing & may_be_indexed(before, old_versions)] = Deletion.ROUTING
    deletions[classes == RecordClass.TOMBSTONE] = Deletion.TOMBSTONE
    return Compared(classes, versions, states, deletions, had_document)


def same_values(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same value; null is the same as null."""
    import pyarrow.compute as pc

    equal = pc.fill_null(pc.equal(one, other), fill_value=False)
    return pc.or_(equal, pc.and_(pc.is_null(one), pc.is_null(other))).to_numpy()  # type: ignore[no-any-return] # no types


def same_lists(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows have the same digests in the same order."""
    import numpy as np
    import pyarrow.compute as pc

    if all(pc.all(pc.equal(pc.list_value_length(lists), 1)).as_py() for lists in (one, other)):
        return same_values(pc.list_flatten(one), pc.list_flatten(other))
    return np.array([left == right for left, right in zip(one.to_pylist(), other.to_pylist(), strict=True)], bool)


def are_rejected(rows: pa.Table) -> npt.NDArray[np.bool_]:
    """Return which rows are of records that `prepare` rejected.

    They have no content key, and exist so that their documents are not taken for removed.
    """
    import pyarrow.compute as pc

    is_tombstone = are_any_of(rows["state"].to_numpy(), (RecordState.TOMBSTONE, RecordState.DUPLICATE_TOMBSTONE))
    has_no_key: npt.NDArray[np.bool_] = pc.list_value_length(rows["content_keys"]).to_numpy() == 0
    return has_no_key & ~is_tombstone


def lost_predictions(before: npt.NDArray[np.uint8], read: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return which documents lack predictions that were written; `read` are the states of their records."""
    lost: npt.NDArray[np.bool_] = (before == RecordState.INDEXED) & (read == RecordState.INCOMPLETE)
    return lost


def candidate_states(states: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the states of rows that win: a former duplicate and an incomplete record have no verdict yet."""
    import numpy as np

    winner = np.arange(len(RecordState), dtype=np.uint8)
    winner[[RecordState.DUPLICATE, RecordState.INCOMPLETE]] = RecordState.PENDING
    winner[RecordState.DUPLICATE_TOMBSTONE] = RecordState.TOMBSTONE
    return winner[states]


def loser_states(states: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the states of rows that lose; tombstones stay known, because they may win later."""
    import numpy as np

    is_tombstone = (states == RecordState.TOMBSTONE) | (states == RecordState.DUPLICATE_TOMBSTONE)
    return np.where(is_tombstone, RecordState.DUPLICATE_TOMBSTONE, RecordState.DUPLICATE).astype(np.uint8)


def may_be_indexed(states: npt.NDArray[np.uint8], versions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which rows may have a document in the index: those written, or whose write has no verdict."""
    unwritten: npt.NDArray[np.bool_] = (versions == 0) & are_any_of(states, (RecordState.DEAD, RecordState.FILTERED))
    return are_any_of(states, DOCUMENT_STATES) & ~unwritten


def refuse_mass_removal(removed: int, before: int, max_removed: str = MAX_REMOVED) -> None:
    """Refuse to remove more than a share of the documents, such as ``20%``, and more than `MIN_REMOVED` documents.

    Raises:
        ConfigError: more would be removed.
    """
    if not exceeds(removed, before, max_removed, always_allowed=MIN_REMOVED):
        return
    share = f"{-(-removed * 100 // before)}%" if before else "100%"
    raise ConfigError(
        f"{removed} of {before} documents would be deleted because their records left the source; max_removed allows "
        f"{max_removed}. Nothing was paid, written or deleted. If the records are missing by mistake, restore them and "
        f"run again; if the documents have to go, start one run with max_removed: {share}"
    )


def retained_remark(retained: int, unreadable: Iterable[str]) -> str:
    """Return the remark on documents that are kept because objects have lines whose id is not known."""
    uris = ", ".join(islice(unreadable, SHOWN_OBJECTS))
    return (
        f"{retained:,} documents whose records are absent stay in the index, because lines without a readable id may "
        f"be theirs: {uris}; correct these lines, and the next run writes or deletes the documents"
    )
