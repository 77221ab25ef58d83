"""Segments give back each answer by its location, or an error that names them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opensearch_batch.core.errors import AnswersUnusable, ConfigError
from opensearch_batch.core.ledger import segments
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.key_index import KeyIndex, Keys, read_index, read_keys, write_keys
from opensearch_batch.core.ledger.parquet_files import StoreFile
from opensearch_batch.core.ledger.segments import AnswerReader, Location, SegmentFiles, write_segment
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from tests.core.memory_objects import MemoryObjects

FILES = SegmentFiles("s3://w/p/predictions")
answers = st.builds(
    lambda rest, parts: StoredAnswer(rest, tuple(cut for cut, _ in parts), tuple(vector for _, vector in parts)),
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from([b"", b"1234", b"12345678"])), max_size=3),
)


def key(number: int) -> bytes:
    """A content key."""
    return number.to_bytes(2, "little") * 8


def written(objects: Objects, **names: list[StoredAnswer]) -> dict[Location, StoredAnswer]:
    """Write segments; return all answers by location."""
    for name, stored in names.items():
        keyed = [(key(row), answer) for row, answer in enumerate(stored)]
        assert write_segment(objects, FILES, name, keyed) == len(stored)
    return {(name, row): answer for name, stored in names.items() for row, answer in enumerate(stored)}


def read(objects: Objects, *locations: Location) -> list[StoredAnswer]:
    """Read answers."""
    with AnswerReader(objects, FILES) as reader:
        return list(reader.read(locations))


def some(count: int, size: int = 4) -> list[StoredAnswer]:
    """Answers that differ."""
    return [StoredAnswer(b'{"n":%d,"v":[]}' % n, (12,), (n.to_bytes(4, "little") * (size // 4),)) for n in range(count)]


@given(one=st.lists(answers, max_size=9), two=st.lists(answers, max_size=9), data=st.data())
def test_answers_are_read_in_any_order(one: list[StoredAnswer], two: list[StoredAnswer], data: st.DataObject) -> None:
    """From several segments, also repeatedly, over the ends of row groups."""
    objects = MemoryObjects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "GROUP_ROWS", data.draw(st.integers(1, 4)))
        patch.setattr(segments, "BATCH_ROWS", data.draw(st.integers(1, 4)))
        patch.setattr(segments, "OPEN_FILES", data.draw(st.integers(1, 2)))
        patch.setattr(segments, "OPEN_GROUPS", data.draw(st.integers(1, 2)))
        known = written(objects, one=one, two=two)
        order = data.draw(st.lists(st.sampled_from(sorted(known)))) if known else []
        assert read(objects, *order) == [known[location] for location in order]
        with AnswerReader(objects, FILES) as reader:
            for name, stored in (("one", one), ("two", two)):
                if stored:
                    assert list(reader.keyed(name)) == [(key(row), answer) for row, answer in enumerate(stored)]


def test_each_row_group_is_read_once_in_the_order_of_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """One open file a segment, one decoded row group each."""
    monkeypatch.setattr(segments, "GROUP_ROWS", 10)
    monkeypatch.setattr(segments, "BATCH_ROWS", 7)
    objects, reads, opened = MemoryObjects(), list[Any](), list[str]()
    known = written(objects, one=some(50), two=some(50))
    plain_read, plain_open = StoreFile.read, objects.open

    def counted(file: StoreFile, *columns: str, group: int | None = None) -> Any:
        reads.append((file, group))
        return plain_read(file, *columns, group=group)

    def counted_open(uri: str, **more: Any) -> Any:
        opened.append(uri)
        return plain_open(uri, **more)

    monkeypatch.setattr(StoreFile, "read", counted)
    monkeypatch.setattr(objects, "open", counted_open)
    order = sorted(known, key=lambda location: location[1])
    assert read(objects, *order) == [known[location] for location in order]
    assert len(reads) == 2 * 5
    assert sorted(opened) == [FILES.segment("one"), FILES.segment("two")]


def test_large_answers_make_small_row_groups() -> None:
    """Memory is bounded by bytes, not only by the number of answers."""
    objects = MemoryObjects()
    known = written(objects, one=some(40, size=1 << 20))
    file = StoreFile(objects, FILES.segment("one"), "one")
    assert file.group_rows == [8] * 5
    file.close()
    assert read(objects, ("one", 39)) == [known["one", 39]]


def test_no_answers_are_no_segment() -> None:
    """Nothing is written."""
    objects = MemoryObjects()
    assert write_segment(objects, FILES, "one", iter(())) == 0
    assert list(objects.list("s3://w/")) == []


@pytest.mark.parametrize("same_half", [True, False])
@given(stored=st.lists(st.integers(0, 9)), wanted=st.lists(st.integers(0, 9)))
def test_an_index_finds_the_first_row_of_each_key(*, same_half: bool, stored: list[int], wanted: list[int]) -> None:
    """Also of keys whose first halves are equal."""
    prefix = b"\0" * 8 if same_half else b""
    keys = [(prefix + n.to_bytes(1, "big") * 16)[:16] for n in range(10)]
    index = KeyIndex.of(Keys.of(keys[n] for n in stored))
    rows = index.find(Keys.of(keys[n] for n in wanted))
    assert rows.tolist() == [stored.index(n) if n in stored else -1 for n in wanted]
    assert index.keys.split() == sorted({keys[n] for n in stored})


def test_keys_that_differ_in_their_second_half_are_told_apart() -> None:
    """A key that is not stored is not found by its first half."""
    index = KeyIndex.of(Keys.of([b"a" * 15 + bytes([n]) for n in (5, 3, 7)]))
    assert index.find(Keys.of([b"a" * 15 + bytes([n]) for n in range(9)])).tolist() == [-1, -1, -1, 1, -1, 0, -1, 2, -1]


def test_a_lost_index_is_computed_from_its_segment() -> None:
    """A segment that cannot be read either is named."""
    objects = MemoryObjects()
    written(objects, one=some(5))
    stored = read_index(objects, FILES.index("one"), FILES.segment("one"), "one")
    objects.delete(FILES.index("one"))
    again = read_index(objects, FILES.index("one"), FILES.segment("one"), "one")
    assert stored.keys.to_bytes() == again.keys.to_bytes()
    assert stored.rows.tolist() == again.rows.tolist()
    objects.delete(FILES.segment("one"))
    with pytest.raises(AnswersUnusable, match=r"segments/one\.parquet: missing; its answers are paid") as error:
        read_index(objects, FILES.index("one"), FILES.segment("one"), "one")
    assert error.value.name == "one"


def test_the_keys_of_a_shard_keep_their_order() -> None:
    """A key may be repeated."""
    objects, keys = MemoryObjects(), [key(n) for n in (3, 1, 2, 1)]
    write_keys(objects, FILES.open_shard("k"), Keys.of(keys))
    assert read_keys(objects, FILES.open_shard("k"), "job").split() == keys


def test_a_missing_segment_is_named_and_a_forbidden_one_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read is not lost."""
    objects = MemoryObjects()
    written(objects, one=some(1), two=some(1))
    objects.delete(FILES.segment("two"))
    with pytest.raises(AnswersUnusable, match="two") as error:
        read(objects, ("one", 0), ("two", 0))
    assert error.value.name == "two"

    def forbidden(uri: str, **more: Any) -> Any:  # noqa: ARG001 - as `open`
        raise ConfigError("access denied")

    monkeypatch.setattr(objects, "open", forbidden)
    with pytest.raises(ConfigError, match="access denied"):
        read(objects, ("one", 0))


def test_a_row_that_a_segment_lacks_is_damage() -> None:
    """A file of another segment in its place, for example."""
    objects = MemoryObjects()
    written(objects, one=some(3))
    with pytest.raises(AnswersUnusable, match="no row 3"):
        read(objects, ("one", 3))


@settings(max_examples=300)
@given(data=st.data())
def test_damage_never_gives_another_answer(data: st.DataObject) -> None:
    """A flipped bit in the data is noticed by its checksum, a short file by its lack of an end."""
    objects = MemoryObjects()
    known = written(objects, one=some(20, size=64))
    stored = objects.read(FILES.segment("one"))
    assert stored is not None
    footer = int.from_bytes(stored.content[-8:-4], "little") + 8
    damaged = bytearray(stored.content)
    if data.draw(st.booleans()):
        damaged[data.draw(st.integers(0, len(damaged) - footer - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    objects.write(FILES.segment("one"), bytes(damaged))
    with suppress(AnswersUnusable):
        assert read(objects, *known) == list(known.values())


def test_local_files_and_large_segments(tmp_path: Path) -> None:
    """Local files are read in place; the rows of a real vector come back."""
    objects, files = LocalFiles(tmp_path), SegmentFiles("predictions")
    vectors = np.random.default_rng(1).standard_normal((5_000, 16), dtype=np.float32)
    rows = [(key(n), StoredAnswer(b"[]", (1,), (vector.tobytes(),))) for n, vector in enumerate(vectors)]
    write_segment(objects, files, "one", rows)
    with AnswerReader(objects, files) as reader:
        found = list(reader.read(("one", row) for row in range(5_000)))
    assert found == [answer for _, answer in rows]
