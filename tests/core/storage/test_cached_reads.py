"""A reader reads what may have changed, at most what it may, and keeps no more than it may."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError
from opensearch_batch.core.storage.cached_reads import MIN_ENTRY_BYTES, CachedReader, ReadBudget, Wanted
from opensearch_batch.core.storage.json_document import save
from tests.core.counted_objects import CountedObjects


class Number(msgspec.Struct, frozen=True):
    """A document."""

    n: int


@pytest.fixture
def objects() -> CountedObjects:
    """Five documents."""
    objects = CountedObjects()
    for number in range(5):
        save(objects, f"s3://w/{number}", Number(number))
    return objects


def uris(count: int, version: str | None = None) -> list[Wanted]:
    """Return the first documents as wanted."""
    return [Wanted(f"s3://w/{number}", version) for number in range(count)]


def test_a_version_is_read_once(objects: CountedObjects) -> None:
    """Another version is read again, and one that is not known is read each time."""
    reader = CachedReader(objects)
    for version, reads in (("a", 3), ("a", 0), ("b", 3), (None, 3), (None, 3)):
        with objects.expect(GET=reads):
            found = reader.read(uris(3, version), Number)
        assert found == {f"s3://w/{number}": Number(number) for number in range(3)}


def test_a_document_stays_fresh_for_as_long_as_its_value_says(objects: CountedObjects) -> None:
    """An absent one is None, and has a value, too."""
    now = [0.0]
    reader = CachedReader(objects, clock=lambda: now[0])
    wanted = [*uris(2), Wanted("s3://w/absent")]

    def fresh_s(value: Number | None) -> float:
        return 10.0 if value is None else float(value.n)

    for at, reads in ((0.0, 3), (0.5, 1), (1.5, 2), (11.0, 3)):
        now[0] = at
        with objects.expect(GET=reads):
            assert reader.read(wanted, Number, fresh_s=fresh_s)["s3://w/absent"] is None


def test_what_a_budget_leaves_out_is_read_next(objects: CountedObjects) -> None:
    """First what was never read, then what was read longest ago; the old value stays until then."""
    now = [0.0]
    reader, seen = CachedReader(objects, clock=lambda: now[0]), []
    for _ in range(4):
        now[0] += 1
        budget = ReadBudget(2)
        found = reader.read(uris(5), Number, budget=budget)
        seen.append((len(found), budget.unread, budget.left))
    assert seen == [(2, 3, 0), (4, 3, 0), (5, 3, 0), (5, 3, 0)]
    for number in range(5):
        save(objects, f"s3://w/{number}", Number(number + 10))
    values = [value.n for value in reader.read(uris(5), Number, budget=ReadBudget(0)).values() if value]
    assert values == [0, 1, 2, 3, 4]


def test_the_memory_of_a_reader_is_bounded(objects: CountedObjects) -> None:
    """What was used longest ago is forgotten."""
    reader = CachedReader(objects, cache_bytes=2 * MIN_ENTRY_BYTES)
    reader.read(uris(1, "a"), Number)
    reader.read(uris(2, "a"), Number)
    reader.read(uris(1, "a"), Number)
    reader.read([Wanted("s3://w/2", "a")], Number)
    with objects.expect(GET=1):
        reader.read(uris(2, "a"), Number)


def test_a_damaged_document_has_the_value_that_the_caller_gives_it(objects: CountedObjects) -> None:
    """Without one, the error names it."""
    objects.write("s3://w/0", b'{"n": "x"}')
    reader = CachedReader(objects)
    assert reader.read(uris(1), Number, damaged=lambda uri: Number(len(uri))) == {"s3://w/0": Number(8)}
    with pytest.raises(FatalError, match="s3://w/0: damaged, or written by another version"):
        reader.read(uris(1), Number)
