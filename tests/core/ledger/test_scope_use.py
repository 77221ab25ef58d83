"""The use of a scope is what its head names."""

from __future__ import annotations

from opensearch_batch.core.ledger.head import Entry, Head
from opensearch_batch.core.ledger.scope_use import Scope, ScopeUse, needed_segments, scopes_of
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.types.manifest import ScopeClaim
from tests.core.memory_objects import MemoryObjects


def entry(rows: str, **segments: int) -> Entry:
    """An object."""
    return Entry(rows, 0, 1, etag="e", segments=segments)


def use_of(**segments: int) -> ScopeUse:
    """The use of a scope with one object."""
    return ScopeUse.of(Head(objects={"o": entry("f", **segments)}), "e")


def test_segments_are_counted_over_all_objects() -> None:
    """A count that is not known in one object is not known at all, whatever the order."""
    objects = {"a": entry("f1", s=2, t=0, u=1), "b": entry("f2", s=3, t=4, u=0), "c": entry("f1")}
    use = ScopeUse.of(Head(objects=objects, deletions="d", predictions="p"), "e1")
    assert use == ScopeUse("e1", "p", "", {"s": 5, "t": 0, "u": 0}, ["d", "f1", "f2"])


def test_a_run_that_has_not_committed_is_named() -> None:
    """Its files are needed by the next run."""
    claim = ScopeClaim(3, "run")
    assert ScopeUse.of(Head(claim=claim, committed=2), "").unfinished == "run"
    assert ScopeUse.of(Head(claim=claim, committed=3), "").unfinished == ""


def test_only_scopes_with_their_predictions_here_count() -> None:
    """Those of a head without this member do, too."""
    uses = [use_of(s=1), ScopeUse("", "here", "", {"s": 2, "t": 0}), ScopeUse("", "there", "", {"s": 4, "u": 1})]
    scopes = [Scope("ledger", "head", use, ()) for use in [*uses, use_of(t=1)]]
    assert needed_segments(scopes, "here") == {"s": 3, "t": 0}


def test_scopes_of_several_ledgers() -> None:
    """With their objects; a folder without a head uses nothing, and a use is kept only on request."""
    objects = MemoryObjects()
    save(objects, "s3://w/p/ledger/one/head.json", Head(objects={"o": entry("f", s=1)}))
    objects.write("s3://w/q/ledger/two/rows/x.parquet", b"")
    for writes in (False, True):
        one, two = scopes_of(objects, ["s3://w/p/ledger/", "s3://w/q/ledger/"], "s3://w/uses.json", writes=writes)
        assert (one.ledger, one.head_uri, one.use.segments) == (
            "s3://w/p/ledger/",
            "s3://w/p/ledger/one/head.json",
            {"s": 1},
        )
        assert (two.use, [item.uri for item in two.items]) == (ScopeUse(), ["s3://w/q/ledger/two/rows/x.parquet"])
        assert (objects.head("s3://w/uses.json") is not None) == writes
