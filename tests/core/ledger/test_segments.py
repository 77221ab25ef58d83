"""Segments give back each answer by its location, or an error that names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import AnswersUnusable, ConfigError
from opensearch_batch.core.ledger import segments
from opensearch_batch.core.ledger.answers import StoredAnswer
from opensearch_batch.core.ledger.key_index import KeyIndex, keys_of, split
from opensearch_batch.core.ledger.segments import AnswerReader, Location, StoreFiles
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import Objects
from tests.core.memory_objects import MemoryObjects

FOLDER = "s3://w/p/predictions"
answers = st.builds(
    lambda rest, parts: StoredAnswer(rest, tuple(cut for cut, _ in parts), tuple(vector for _, vector in parts)),
    st.binary(max_size=20),
    st.lists(st.tuples(st.integers(0, 99), st.sampled_from([b"", b"1234", b"12345678"])), max_size=3),
)


def key(number: int) -> bytes:
    """A content key."""
    return number.to_bytes(2, "little") * 8


def files(objects: Objects) -> StoreFiles:
    """The files of a store."""
    return StoreFiles(objects, FOLDER, lambda: 1.0)


def written(objects: Objects, *stored: list[StoredAnswer]) -> dict[Location, StoredAnswer]:
    """Write segments; return all answers by location."""
    known = dict[Location, StoredAnswer]()
    for each in stored:
        keyed = [(key(row), answer) for row, answer in enumerate(each)]
        rest = iter(each)
        for name, keys, _ in files(objects).write_segments(keyed):
            assert files(objects).segment_keys(name).tobytes() == keys.tobytes()
            known |= {(name, row): next(rest) for row in range(len(keys))}
        assert not list(rest)
    return known


def read(objects: Objects, *locations: Location) -> list[StoredAnswer]:
    """Read answers."""
    return list(AnswerReader(files(objects), {}).read(locations))


def some(count: int, size: int = 4) -> list[StoredAnswer]:
    """Answers that differ."""
    return [StoredAnswer(b'{"n":%d,"v":[]}' % n, (12,), (n.to_bytes(4, "little") * (size // 4),)) for n in range(count)]


@given(one=st.lists(answers, max_size=9), two=st.lists(answers, max_size=9), data=st.data())
def test_answers_are_read_in_any_order(one: list[StoredAnswer], two: list[StoredAnswer], data: st.DataObject) -> None:
    """From several segments, also repeatedly."""
    objects = MemoryObjects()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_ROWS", data.draw(st.integers(1, 4)))
        patch.setattr(segments, "BATCH_ROWS", data.draw(st.integers(1, 4)))
        known = written(objects, one, two)
        order = data.draw(st.lists(st.sampled_from(sorted(known)))) if known else []
        assert read(objects, *order) == [known[location] for location in order]


def test_each_segment_is_read_once_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a batch ends within it."""
    monkeypatch.setattr(segments, "SEGMENT_ROWS", 10)
    monkeypatch.setattr(segments, "BATCH_ROWS", 7)
    objects, reads = MemoryObjects(), list[str]()
    known = written(objects, some(50), some(55, size=8))
    plain = objects.read

    def counted(uri: str) -> Any:
        reads.append(uri)
        return plain(uri)

    monkeypatch.setattr(objects, "read", counted)
    assert read(objects, *sorted(known)) == [known[location] for location in sorted(known)]
    assert len(reads) == len(set(reads)) == 5 + 6


def test_memory_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only by the number of answers."""
    objects = MemoryObjects()
    known = written(objects, some(10, size=1 << 20))
    assert [row for _, row in known] == [0, 1] * 5
    monkeypatch.setattr(segments, "BATCH_BYTES", 4 << 20)
    reader = AnswerReader(files(objects), dict.fromkeys((name for name, _ in known), 1 << 20))
    given_locations = iter(known)
    assert next(reader.read(given_locations)) == next(iter(known.values()))
    assert len(list(given_locations)) == 10 - 4


def test_no_answers_are_no_segment() -> None:
    """Nothing is written."""
    objects = MemoryObjects()
    assert list(files(objects).write_segments(iter(()))) == []
    assert list(objects.list("s3://w/")) == []


@pytest.mark.parametrize("same_half", [True, False])
@given(stored=st.lists(st.integers(0, 9)), wanted=st.lists(st.integers(0, 9)))
def test_an_index_finds_the_first_row_of_each_key(*, same_half: bool, stored: list[int], wanted: list[int]) -> None:
    """Also of keys whose first halves are equal."""
    prefix = b"\0" * 8 if same_half else b""
    keys = [(prefix + n.to_bytes(1, "big") * 16)[:16] for n in range(10)]
    index = KeyIndex.of([keys_of(keys[n] for n in stored)])
    entries = index.find(keys_of(keys[n] for n in wanted))
    rows = [int(index.entries["row"][entry]) if entry >= 0 else -1 for entry in entries]
    assert rows == [stored.index(n) if n in stored else -1 for n in wanted]
    assert split(index.rows_of(0)) == [keys[n] for n in stored]


def test_keys_that_differ_in_their_second_half_are_told_apart() -> None:
    """A key that is not stored is not found by its first half."""
    index = KeyIndex.of([keys_of([b"a" * 15 + bytes([n]) for n in (5, 3, 7)])])
    assert index.find(keys_of([b"a" * 15 + bytes([n]) for n in range(9)])).tolist() == [-1, -1, -1, 0, -1, 1, -1, 2, -1]


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1, max_size=5),
    st.sets(st.integers(0, 4)),
    st.lists(st.integers(0, 9)),
)
def test_of_several_sources_the_last_that_is_left_has_a_key(
    stored: list[list[int]], left: set[int], wanted: list[int]
) -> None:
    """However the sources are numbered then."""
    index = KeyIndex.of([keys_of([key(n) for n in numbers]) for numbers in stored])
    store = files(MemoryObjects())
    index = store.read_key_index(store.write_key_index(index)).renumbered({at: -at - 2 for at in left})
    expected = {
        n: (-at - 2, row)
        for at, numbers in enumerate(stored)
        if at in left
        for row, n in reversed(list(enumerate(numbers)))
    }
    for n, entry in zip(wanted, index.find(keys_of([key(n) for n in wanted])).tolist(), strict=True):
        found = index.entries[entry].item()[1:] if entry >= 0 else None
        assert found == expected.get(n)


def test_a_missing_segment_is_named_and_a_forbidden_one_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may not be read is not lost."""
    objects = MemoryObjects()
    one, two, _ = written(objects, some(1), some(2))
    objects.delete(f"{FOLDER}/segments/{two[0]}.parquet")
    with pytest.raises(AnswersUnusable, match=rf"segments/{two[0]}\.parquet: missing; its answers are paid") as error:
        read(objects, one, two)
    assert error.value.name == two[0]

    def forbidden(uri: str) -> Any:
        raise ConfigError(f"{uri}: access denied")

    monkeypatch.setattr(objects, "read", forbidden)
    with pytest.raises(ConfigError, match="access denied"):
        read(objects, one)


@given(data=st.data())
def test_damage_is_noticed_wherever_it_is(data: st.DataObject) -> None:
    """A changed bit, a lost end, or another segment in its place: no answer is read, and the segment is named."""
    objects = MemoryObjects()
    ((name, _), *_) = written(objects, some(20, size=64))
    ((other, _), *_) = written(objects, some(20, size=60))
    stored = objects.read(f"{FOLDER}/segments/{name}.parquet")
    replacing = objects.read(f"{FOLDER}/segments/{other}.parquet")
    assert stored is not None
    assert replacing is not None
    damaged, kind = bytearray(stored.content), data.draw(st.sampled_from(["bit", "end", "other"]))
    if kind == "bit":
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif kind == "end":
        del damaged[data.draw(st.integers(0, len(damaged) - 1)) :]
    objects.write(f"{FOLDER}/segments/{name}.parquet", replacing.content if kind == "other" else bytes(damaged))
    with pytest.raises(AnswersUnusable, match="damaged: its content does not match the digest") as error:
        read(objects, (name, 0))
    assert error.value.name == name


def test_local_files_and_large_segments(tmp_path: Path) -> None:
    """The rows of a real vector come back."""
    store = StoreFiles(LocalFiles(tmp_path), "predictions", lambda: 1.0)
    vectors = np.random.default_rng(1).standard_normal((5_000, 16), dtype=np.float32)
    rows = [(key(n), StoredAnswer(b"[]", (1,), (vector.tobytes(),))) for n, vector in enumerate(vectors)]
    locations = [(name, row) for name, keys, _ in store.write_segments(rows) for row in range(len(keys))]
    assert len(locations) == 5_000
    assert list(AnswerReader(store, {}).read(locations)) == [answer for _, answer in rows]
