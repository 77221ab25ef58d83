"""Head of a scope: who claims last commits, and nobody else; lost responses and killed runs."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.ledger.garbage import GRACE_S, LATE_S, new_name
from opensearch_batch.core.ledger.head import ClaimLost, Entry, Head, ScopeHead
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from opensearch_batch.core.types.manifest import ScopeClaim
from opensearch_batch.core.types.versions import next_version
from tests.core.memory_objects import LossyObjects, MemoryObjects

AT_S = 5.0
FIRST = next_version(AT_S)
SECOND = next_version(AT_S, after=FIRST)
URI = "ledger/scope/head.json"
ENTRY = Entry("rows/1.parquet", 0, 2, {"indexed": 1, "dead": 1, "duplicate": 3}, etag="e1", segments={"s": 2})


def with_entry(uri: str, entry: Entry = ENTRY) -> dict[str, Entry]:
    """The objects of a head."""
    return {uri: entry}


def set_objects(head: Head) -> Head:
    """A commit's change."""
    return msgspec.structs.replace(head, index="books", index_uuid="u1", fingerprint="f1", objects=with_entry("a"))


def same(head: Head) -> Head:
    """A commit without a change."""
    return head


def test_a_new_scope_is_empty() -> None:
    """Nothing is written when it is read."""
    store = MemoryObjects()
    assert ScopeHead(store, URI).load() == Head()
    assert store.head(URI) is None


def test_what_is_committed_is_loaded(tmp_path: Path) -> None:
    """Each write has the next number and another token."""
    head = ScopeHead(LocalFiles(tmp_path), URI)
    claimed = head.claim(AT_S, "run1")
    assert (claimed.number, claimed.claim, claimed.committed) == (1, ScopeClaim(FIRST, "run1"), 0)
    committed = head.commit(claimed.claim, set_objects)
    assert (committed.number, committed.committed, committed.objects) == (2, FIRST, {"a": ENTRY})
    assert committed.token != claimed.token
    assert ScopeHead(LocalFiles(tmp_path), URI).load() == committed
    assert committed.documents == 2


def test_the_version_always_grows() -> None:
    """Also when a clock is set back, and when one run claims again."""
    head = ScopeHead(MemoryObjects(), URI)
    versions = [head.claim(at_s, "run").claim.version for at_s in (5.0, 4.0, 5.0, 7200.0, 0.0, 9000.0)]
    assert versions == sorted(set(versions))
    assert (versions[0], versions[3], versions[5]) == (next_version(5.0), next_version(7200.0), next_version(9000.0))


def test_only_the_last_claim_commits() -> None:
    """The error says who has the scope, and what to do; the other run's work stays."""
    head = ScopeHead(MemoryObjects(), URI)
    first, second = head.claim(AT_S, "run1").claim, head.claim(AT_S, "run2").claim
    stored = head.load()
    with pytest.raises(
        ClaimLost, match=r"^ledger/scope/head\.json: run run2 has claimed .* run run1, .* nothing\. .* clear prepare"
    ):
        head.commit(first, set_objects)
    with pytest.raises(FatalError, match="run run2 has claimed this scope"):
        head.require(first)
    assert head.load() == stored
    assert head.require(second) == stored
    assert head.commit(second, set_objects).objects == {"a": ENTRY}


def test_a_process_that_paused_names_no_rows_that_may_be_deleted() -> None:
    """Neither before its commit nor by it; rows that the head has named already stay."""
    now, written = 1_700_000_000.0, f"rows/{new_name('0' * 32, now=1_700_000_000.0)}.parquet"
    head = ScopeHead(MemoryObjects(), URI, clock=lambda: now)
    claim = head.claim(AT_S, "run").claim

    def change(head: Head) -> Head:
        return msgspec.structs.replace(head, objects=with_entry("a", msgspec.structs.replace(ENTRY, rows=written)))

    before = head.load()
    now += LATE_S
    for name in (head.amend, head.commit):
        with pytest.raises(RetriableError, match=f"{written}: this process wrote the file so long ago"):
            name(claim, change)
    assert head.load() == before
    now -= 1
    head.amend(claim, change)
    now += 2
    assert head.commit(claim, change).files() == {written}


def test_rows_are_marked_and_a_head_that_names_them_has_no_mark() -> None:
    """They may be deleted when their grace period has passed."""
    now = 1_700_000_000.0
    rows = [f"rows/{new_name('0' * 32, now=now + number)}.parquet" for number in range(3)]
    head = ScopeHead(MemoryObjects(), URI, clock=lambda: now)
    claim = head.claim(AT_S, "run").claim
    named = with_entry("a", msgspec.structs.replace(ENTRY, rows=rows[0]))
    head.commit(claim, lambda head: msgspec.structs.replace(head, objects=named))
    assert head.collect(rows, now=now) == []
    assert head.load().garbage == dict.fromkeys(rows[1:], now)
    more = named | with_entry("b", msgspec.structs.replace(ENTRY, rows=rows[1]))
    head.commit(claim, lambda head: msgspec.structs.replace(head, objects=more))
    assert head.load().garbage == {rows[2]: now}
    assert head.collect(rows, now=now + GRACE_S) == rows[2:]


def test_a_lost_response_is_recognized() -> None:
    """The claim and the commit are stored once each."""
    store = LossyObjects()
    head = ScopeHead(store, URI)
    store.lost = 1
    claim = head.claim(AT_S, "run").claim
    assert claim == ScopeClaim(FIRST, "run")
    store.lost = 1
    committed = head.commit(claim, set_objects)
    assert (committed, committed.number, store.writes) == (head.load(), 2, 2)


def test_a_run_killed_after_its_claim() -> None:
    """The next attempt claims a higher version; the scope is as it was."""
    store = LossyObjects()
    head = ScopeHead(store, URI)
    first = head.commit(head.claim(AT_S, "run").claim, set_objects)
    store.die = True
    with pytest.raises(RetriableError, match="reset"):
        head.claim(AT_S, "run")
    store.die = False
    again = head.claim(AT_S, "run")
    assert (again.claim.version, again.objects) == (next_version(AT_S, after=SECOND), first.objects)


def test_a_run_killed_after_its_commit() -> None:
    """The retry commits the same again, or finds that it has committed, if another run has claimed the scope since."""
    store = LossyObjects()
    head = ScopeHead(store, URI)
    claim = head.claim(AT_S, "run").claim
    store.die = True
    with pytest.raises(RetriableError, match="reset"):
        head.commit(claim, set_objects)
    store.die = False
    assert head.commit(claim, set_objects).objects == {"a": ENTRY}
    head.claim(AT_S, "run2")
    stored = head.load()
    assert head.commit(claim, set_objects) == stored == head.load()


def test_a_response_lost_while_another_run_claims() -> None:
    """The commit holds, and the run learns it."""

    class Overtaken(LossyObjects):
        """Another run claims the scope before this run reads the head again."""

        def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
            stored = super().replace(uri, content, etag=etag)
            if self.lost < 0:
                self.lost = 0
                ScopeHead(self, URI).claim(AT_S, "run2")
                return False
            return stored

    store = Overtaken()
    head = ScopeHead(store, URI)
    claim = head.claim(AT_S, "run").claim
    store.lost = -1
    committed = head.commit(claim, set_objects)
    assert (committed.committed, committed.claim, committed.objects) == (
        FIRST,
        ScopeClaim(SECOND, "run2"),
        {"a": ENTRY},
    )


def test_a_change_by_somebody_with_the_same_claim_is_kept() -> None:
    """The commit's change is applied again to the newer head."""
    store = MemoryObjects()
    head = ScopeHead(store, URI)
    claim = head.claim(AT_S, "run").claim
    calls: list[Head] = []

    def add(value: Head) -> Head:
        if not calls:
            calls.append(value)
            head.commit(claim, lambda other: msgspec.structs.replace(other, objects=with_entry("b")))
        return msgspec.structs.replace(value, objects=value.objects | with_entry("a"))

    assert head.commit(claim, add).objects.keys() == {"a", "b"}


def test_many_runs_at_once(tmp_path: Path) -> None:
    """Each claim has its own version, and only the greatest one commits."""
    versions: list[int] = []
    results: list[str] = []
    barrier = threading.Barrier(8)

    def run(name: str) -> None:
        head = ScopeHead(LocalFiles(tmp_path), URI)
        barrier.wait()
        claim = head.claim(AT_S, name).claim
        versions.append(claim.version)
        barrier.wait()
        with suppress(ClaimLost):
            results.append(head.commit(claim, same).claim.run_key)

    threads = [threading.Thread(target=run, args=(f"run{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(versions)) == 8
    stored = ScopeHead(LocalFiles(tmp_path), URI).load()
    assert (stored.number, stored.committed, results) == (9, max(versions), [stored.claim.run_key])


def test_another_index_has_no_documents() -> None:
    """An index that was deleted and made again is another one, though it has the same name."""
    head = set_objects(Head(number=3, claim=ScopeClaim(5, "run")))
    assert head.for_target(index="books", index_uuid="u1", fingerprint="f1") == head
    fresh = head.for_target(index="books", index_uuid="u2", fingerprint="f1")
    assert (fresh.objects, fresh.index_uuid, fresh.number, fresh.claim) == ({}, "u2", 3, ScopeClaim(5, "run"))


def test_another_fingerprint_opens_all_objects_again() -> None:
    """The documents' ids and routings are still known, because some may have to be deleted."""
    head = set_objects(Head()).for_target(index="books", index_uuid="u1", fingerprint="f2")
    assert head.fingerprint == "f2"
    assert head.objects == {"a": msgspec.structs.replace(ENTRY, etag="", stale=True)}


@pytest.mark.parametrize("content", [b"", b"{", b'{"number": "one"}', b"\xff"])
def test_a_damaged_head_is_named(content: bytes) -> None:
    """It never counts as an empty one."""
    store: Objects = MemoryObjects()
    store.write(URI, content)
    with pytest.raises(FatalError, match=r"head\.json: damaged.*opensearch-batch ledger rebuild"):
        ScopeHead(store, URI).load()
