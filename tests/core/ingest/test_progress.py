"""Of two attempts at the same work one writes its progress; which one, each of them knows."""

from __future__ import annotations

import pytest

from opensearch_batch.core.ingest.progress import Progress, ProgressFile
from opensearch_batch.core.types.counts import IngestCounts
from tests.core.memory_objects import MemoryObjects

URI = "s3://w/progress.json"


def progress(of: ProgressFile, *, settled: int = 0, done: bool = False) -> Progress:
    """Return the progress of an attempt."""
    return Progress("f", of.attempt, dead_letters="s3://w/dead/", done=done, settled=settled, counts=IngestCounts())


def opened(objects: MemoryObjects) -> ProgressFile:
    """Return the progress as an attempt finds it."""
    file = ProgressFile(objects, URI)
    file.load("f")
    return file


@pytest.mark.parametrize("is_new", [True, False])
def test_of_two_attempts_that_begin_one_goes_on(*, is_new: bool) -> None:
    """Both found the same state: the second write is refused, and is not taken for a write of one's own."""
    objects = MemoryObjects()
    if not is_new:
        earlier = opened(objects)
        assert earlier.begin(progress(earlier, settled=3))
    one, two = opened(objects), opened(objects)
    assert one.begin(progress(one))
    assert not two.begin(progress(two))
    assert opened(objects).load("f") == progress(one)


def test_who_was_taken_over_saves_nothing() -> None:
    """The later attempt has the progress; a progress that was deleted is written anew."""
    objects = MemoryObjects()
    one = opened(objects)
    assert one.begin(progress(one))
    two = opened(objects)
    assert two.begin(progress(two))
    assert not one.save(progress(one, settled=5))
    assert two.save(progress(two, settled=2))
    objects.delete(URI)
    assert two.save(progress(two, settled=4, done=True))
    assert opened(objects).load("f") == progress(two, settled=4, done=True)


def test_a_progress_of_another_version_counts_only_as_an_attempt() -> None:
    """Its work starts again, and the dead letters of the new attempt sort after those of the old one."""
    objects = MemoryObjects()
    objects.write(URI, b'{"fingerprint":"f","attempt":"000007-abcd","settled":"many"}')
    file = ProgressFile(objects, URI)
    assert file.load("f") is None
    assert file.attempt.startswith("000008-")
    assert file.begin(progress(file))
    objects.write(URI, b"no JSON")
    assert ProgressFile(objects, URI).load("f") is None
