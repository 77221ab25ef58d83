"""A head is changed by compare-and-swap; what was computed from a head that was replaced meanwhile does not count."""

from __future__ import annotations

import msgspec
import pytest

from opensearch_batch.core.errors import FatalError, RetriableError
from opensearch_batch.core.storage import head_document
from opensearch_batch.core.storage.head_document import HeadDocument, NumberedHead
from tests.core.memory_objects import LossyObjects


class Counter(NumberedHead, frozen=True):
    """A head that counts."""

    count: int = 0


@pytest.fixture
def store() -> LossyObjects:
    """A store that may lose responses."""
    return LossyObjects()


@pytest.fixture
def head(store: LossyObjects) -> HeadDocument[Counter]:
    """A head that is absent."""
    return HeadDocument(store, "head.json", Counter, remedy="count again")


def added(counter: Counter) -> Counter:
    """Count."""
    return msgspec.structs.replace(counter, count=counter.count + 1)


def test_an_unchanged_head_is_not_written(head: HeadDocument[Counter], store: LossyObjects) -> None:
    """Also if it is absent."""
    assert head.change(lambda counter: counter) == Counter()
    assert store.head("head.json") is None
    first = head.change(added)
    assert (first.number, first.count, len(first.token)) == (1, 1, 16)
    assert head.change(lambda counter: counter) == head.load() == first
    assert store.writes == 1


def test_a_write_without_a_response_is_not_repeated(head: HeadDocument[Counter], store: LossyObjects) -> None:
    """It is recognized by its token."""
    for count in (1, 2):
        store.lost = 1
        assert head.change(added).count == head.load().count == store.writes == count


def test_an_error_that_another_run_has_caused_does_not_count(head: HeadDocument[Counter]) -> None:
    """A file that the head named is gone, because another run has replaced the head; else the error is raised."""
    seen = list[int]()

    def failing(counter: Counter) -> Counter:
        seen.append(counter.count)
        if counter.count < 2:
            head.change(added)
            raise FatalError("gone")
        return added(counter)

    assert head.change(failing).count == 3
    assert seen == [0, 1, 2]

    def broken(counter: Counter) -> Counter:
        raise FatalError(f"gone at {counter.count}")

    with pytest.raises(FatalError, match="gone at 3"):
        head.change(broken)


def test_a_head_that_others_change_at_every_attempt(
    head: HeadDocument[Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up at last, and a retry may help."""
    monkeypatch.setattr(head_document, "ATTEMPTS", 3)

    def raced(counter: Counter) -> Counter:
        head.write(added(counter), after=counter)
        return added(counter)

    with pytest.raises(RetriableError, match=r"head\.json: other runs changed this document at every attempt; run"):
        head.change(raced)
    assert head.load().count == 3
