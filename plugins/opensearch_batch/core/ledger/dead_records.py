"""Dead records of a scope of the record ledger while a replay sends them again.

A replay claims the scope like a run, so it never races with a run: it waits for a run that has not committed, and a run
that claims the scope meanwhile wins. Its documents have the next version of the scope. So they replace no document of a
newer partition, whose versions are higher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import RetriableError
from opensearch_batch.core.ledger.head import ClaimLost, Head, ScopeHead, in_file_order
from opensearch_batch.core.ledger.rows import RecordState, RowsReader, RowsWriter, decided, with_verdicts
from opensearch_batch.core.storage.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

    from opensearch_batch.core.types.manifest import ScopeClaim

# The beginning of the run key in the claim of a replay.
REPLAY = "replay of "
# An object of the source, and a line of it.
Origin = tuple[str, int]


class LedgerScope(msgspec.Struct, frozen=True):
    """Where the record ledger of a scope is: its head, and the folder of its rows."""

    head: str
    rows: str


class DeadRecords:
    """The dead records of a scope that a replay has claimed.

    Raises:
        RetriableError: a run has claimed the scope and has not committed.
    """

    def __init__(self, objects: Objects, scope: LedgerScope, queue: str) -> None:
        self._objects = objects
        self._scope = scope
        self._document = ScopeHead(objects, scope.head)
        # Not the current time: the documents of newer partitions must keep higher versions.
        self._head = self._document.claim(0.0, f"{REPLAY}{queue}", change=_refuse_unfinished)
        self.version = self._head.claim.version + 1

    def still_claimed(self) -> bool:
        """Return whether no run has claimed the scope since."""
        return self._document.load().claim == self._head.claim

    def rows_of(self, letters: Mapping[Origin, bytes], *, may_have_moved: bool) -> dict[Origin, Origin]:
        """Return the dead rows of records, which are given with their hashes; changed and removed records have none.

        Args:
            letters: the hash of the record of each dead letter, by the object and the line from which it was read.
            may_have_moved: accept an equal record that is somewhere else now, because its id is part of the record.
        """
        wanted, dead = set(letters.values()), dict[bytes, dict[Origin, None]]()
        reader = RowsReader(self._objects)
        has_dead = {uri: entry for uri, entry in self._head.objects.items() if "dead" in entry.states}
        for uri, entry in in_file_order(has_dead):
            for rows in reader.read(entry, ("line", "record_hash", "state")):
                for line, record_hash in _dead_rows(rows):
                    if record_hash in wanted:
                        dead.setdefault(record_hash, {})[uri, line] = None
        origins = dict[Origin, Origin]()
        for origin, record_hash in letters.items():
            equal = dead.get(record_hash, {})
            if origin in equal or (may_have_moved and equal):
                origins[origin] = origin if origin in equal else next(iter(equal))
        return origins

    def announce(self, origins: Iterable[Origin]) -> None:
        """Record that these records may have a document from now on, so that a run can delete it.

        Otherwise nothing would know of a document that a replay writes before it is killed.

        Raises:
            RetriableError: a run has claimed the scope.
        """
        indexed = dict.fromkeys(origins, RecordState.INDEXED)
        self._change(self._document.amend, indexed, _with_versions)

    def commit(self, verdicts: Mapping[Origin, RecordState]) -> None:
        """Replace the states of records, and the version of those that are indexed now.

        Raises:
            RetriableError: a run has claimed the scope; nothing was committed.
        """
        # After the commit of an earlier part, a head that another run has claimed would pass for this commit.
        is_committed = self._head.committed == self._head.claim.version
        self._change(self._document.amend if is_committed else self._document.commit, verdicts, lambda _, new: new)

    def _change(
        self,
        change_head: Callable[[ScopeClaim, Callable[[Head], Head]], Head],
        verdicts: Mapping[Origin, RecordState],
        choose: Callable[[pa.Table, pa.Table], pa.Table],
    ) -> None:
        """Write what `choose` makes of rows before and after the verdicts, and change the head."""
        states = dict[str, dict[int, RecordState]]()
        for (uri, line), state in verdicts.items():
            states.setdefault(uri, {})[line] = state
        reader, writer = RowsReader(self._objects), RowsWriter(self._objects, self._scope.rows)
        dead = RecordState.DEAD
        for uri, entry in in_file_order({uri: self._head.objects[uri] for uri in states}):
            for rows in reader.read(entry):
                new = decided(rows, dead, states[uri].items(), otherwise=dead, version=self.version)
                writer.add(uri, choose(rows, new))
        slices = writer.close()

        def change(head: Head) -> Head:
            changed = {
                uri: msgspec.structs.replace(head.objects[uri], **msgspec.structs.asdict(part))
                for uri, part in slices.items()
            }
            return msgspec.structs.replace(head, objects=head.objects | changed)

        try:
            self._head = change_head(self._head.claim, change)
        except ClaimLost as error:
            raise RetriableError(
                f"{self._scope.head}: a run has claimed these records meanwhile; replay again when it has ended"
            ) from error


def _with_versions(rows: pa.Table, new: pa.Table) -> pa.Table:
    """Return rows with the versions of others."""
    return with_verdicts(rows, rows["state"].to_numpy(), new["version"].to_numpy())


def _dead_rows(rows: pa.Table) -> Iterator[tuple[int, bytes]]:
    import pyarrow.compute as pc

    # A row with line 0 is of a record that left its object.
    dead = rows.filter(pc.and_(pc.equal(rows["state"], int(RecordState.DEAD)), pc.greater(rows["line"], 0)))
    return zip(dead["line"].to_pylist(), dead["record_hash"].to_pylist(), strict=True)


def _refuse_unfinished(head: Head) -> Head:
    """Return the head; raise RetriableError if a run has claimed the scope and has not committed."""
    claim = head.claim
    if claim.version > head.committed and not claim.run_key.startswith(REPLAY):
        raise RetriableError(
            f"run {claim.run_key} has claimed the records of this queue, and has not committed yet; replay when it has "
            "ended. If it failed, clear it or start another run first"
        )
    return head
