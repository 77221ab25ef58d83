"""A join yields every row exactly once, in one order, whatever fits in memory."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opensearch_batch.core.errors import ConfigError, RetriableError
from opensearch_batch.core.ingest.join import MEMORY_BYTES, Group, Stream, join
from opensearch_batch.core.ingest.spill import KeyTable, SeenKeys
from opensearch_batch.core.types.rows import KeyedRow, Row


class Other(NamedTuple):
    """An entry that is no row."""

    source: int
    line: int


Item = KeyedRow | Other
NOWHERE = Path("there/is/no/such/folder")
KEYS = st.sampled_from(["a", "b", "c", "d", "é", "\ud800", ""])
SOURCES = st.lists(st.lists(st.none() | KEYS, max_size=12), max_size=4)
SIZES = st.lists(st.none() | st.integers(0, 3000), min_size=4, max_size=4)
BOUNDS = st.sampled_from([0, 1, 600, 1500, 3000, 6000, 1 << 20]) | st.integers(0, 20_000)


def items(source: int, keys: Sequence[str | None], content_bytes: int = 9) -> list[Item]:
    """Return the entries of one source; None is one that is no row."""
    made: list[Item] = []
    for line, key in enumerate(keys, 1):
        content = f"{source}:{line}".encode().ljust(content_bytes, b".")
        row = Row(source, f"{source}-{line // 5}.jsonl", line, line * 100, content)
        made.append(Other(source, line) if key is None else KeyedRow(key, row, values=b"sliced"))
    return made


def streams(sources: Sequence[Sequence[str | None]], sizes: Sequence[int | None] = (None,) * 9) -> list[Stream[Other]]:
    """Return the streams of sources."""
    return [Stream(iter(items(n, keys)), size) for n, (keys, size) in enumerate(zip(sources, sizes, strict=False))]


def joined(
    sources: Sequence[Sequence[str | None]],
    sizes: Sequence[int | None] = (None,) * 9,
    *,
    memory_bytes: int = MEMORY_BYTES,
    folder: Path = NOWHERE,
) -> list[Group | Other]:
    """Join sources given by their keys."""
    found = join(streams(sources, sizes), folder=folder, memory_bytes=memory_bytes)
    return list(found)


def groups(found: Sequence[Group | Other], *, late: bool = False) -> list[str]:
    """Return the keys of the late groups, or of the others, in order."""
    return [item.key for item in found if isinstance(item, Group) and item.late == late]


def lines(group: Group | Other) -> list[tuple[int, int]]:
    """Return the positions of the rows of a group."""
    assert isinstance(group, Group)
    return [(keyed.row.source, keyed.row.line) for keyed in group.rows]


def open_files(folder: Path) -> int:
    """Count the files below a folder that this process has open, named or not."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += link.readlink().is_relative_to(folder)
        except FileNotFoundError:
            continue
    return count


def numbered(numbers: Sequence[int]) -> list[str]:
    """Return a key for each number."""
    return [f"k{number:04}" for number in numbers]


@given(SOURCES, SIZES, BOUNDS)
def test_every_row_comes_out_once_and_every_key_has_one_group(
    sources: list[list[str | None]], sizes: list[int | None], memory_bytes: int
) -> None:
    """The result equals that of a dict of lists; only rows after their key's group are late."""
    expected: dict[str, list[tuple[Row, str]]] = {}
    for number, keys in enumerate(sources):
        for item in items(number, keys):
            if isinstance(item, KeyedRow):
                expected.setdefault(item.key, []).append((item.row, item.key))
    with TemporaryDirectory() as name:
        found = joined(sources, sizes, memory_bytes=memory_bytes, folder=Path(name))
    given_out: dict[str, list[Group]] = {}
    for group in found:
        if isinstance(group, Group):
            given_out.setdefault(group.key, []).append(group)
    assert {key: [g.late for g in all_of_it] for key, all_of_it in given_out.items()} == {
        key: [False] + [True] * (len(all_of_it) - 1) for key, all_of_it in given_out.items()
    }
    rows = {key: Counter((k.row, k.key) for g in all_of_it for k in g.rows) for key, all_of_it in given_out.items()}
    assert rows == {key: Counter(all_of_it) for key, all_of_it in expected.items()}


@given(SOURCES, SIZES, BOUNDS)
def test_groups_and_all_else_keep_the_order_of_their_sources(
    sources: list[list[str | None]], sizes: list[int | None], memory_bytes: int
) -> None:
    """Rows of a group are sorted by source and line; entries that are no rows are yielded once, in order."""
    with TemporaryDirectory() as name:
        found = joined(sources, sizes, memory_bytes=memory_bytes, folder=Path(name))
    for item in found:
        if isinstance(item, Group):
            assert lines(item) == sorted(lines(item))
    for number, keys in enumerate(sources):
        others = [item for item in items(number, keys) if isinstance(item, Other)]
        assert [item for item in found if isinstance(item, Other) and item.source == number] == others


@given(SOURCES, SIZES, BOUNDS)
def test_the_order_is_the_same_each_time(
    sources: list[list[str | None]], sizes: list[int | None], memory_bytes: int
) -> None:
    """So a second run can skip by count what the first one settled."""
    with TemporaryDirectory() as name:
        found = [joined(sources, sizes, memory_bytes=memory_bytes, folder=Path(name)) for _ in range(2)]
    assert found[0] == found[1]


@pytest.mark.parametrize("memory_bytes", [5_000, MEMORY_BYTES])
def test_the_order_is_the_same_in_another_process(memory_bytes: int, tmp_path: Path) -> None:
    """The order does not depend on Python's random string hashes."""
    program = f"""
import random
from pathlib import Path
from tests.core.ingest.test_join import joined, numbered
some = random.Random(3)
sources = [numbered([some.randrange(90) for _ in range(99)]) for _ in range(3)]
print([(g.key, g.late) for g in joined(sources, memory_bytes={memory_bytes}, folder=Path({str(tmp_path)!r}))])
"""
    printed = {
        subprocess.run(  # noqa: S603 - this very file
            [sys.executable, "-c", program],
            env={"PYTHONPATH": ".:plugins", "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


@given(SOURCES, SIZES)
def test_rows_that_are_late_in_little_memory_are_never_more_than_the_duplicates(
    sources: list[list[str | None]], sizes: list[int | None]
) -> None:
    """A source that has each key once never makes a late group."""
    once = [list(dict.fromkeys(keys)) for keys in sources]
    with TemporaryDirectory() as name:
        for memory_bytes in (0, 1500, MEMORY_BYTES):
            assert groups(joined(once, sizes, memory_bytes=memory_bytes, folder=Path(name)), late=True) == []


def test_sources_in_the_same_order_stream() -> None:
    """No file is created and at most one row waits."""
    keys = numbered(range(500))
    found = joined([keys, keys, keys], memory_bytes=2_000)
    assert groups(found) == keys
    assert [lines(group) for group in found] == [[(0, n), (1, n), (2, n)] for n in range(1, 501)]


def test_missing_rows_here_and_there_wait_alone() -> None:
    """After a gap of 100 rows in one source the sources are read side by side again."""
    ahead: list[int] = []
    read = 0

    def counted(rows: list[Item]) -> Iterator[Item]:
        nonlocal read
        for row in rows:
            read += 1
            yield row

    whole, gapped = range(1000), [n for n in range(1000) if not 300 <= n < 400]
    sources = [Stream(counted(items(n, numbered(numbers))), None) for n, numbers in enumerate((whole, gapped))]
    done = 0
    for group in join(sources, folder=NOWHERE):
        assert isinstance(group, Group)
        done += len(group.rows)
        ahead.append(read - done)
    assert done == read == 1900
    assert ahead[299] == 0
    assert max(ahead) == 199
    # Past the gap only its own 100 rows wait.
    assert ahead[850] == 100


def test_a_small_source_is_read_whole_before_the_big_one() -> None:
    """Its rows wait for their partners in the big source, without a file."""
    big, small = numbered(range(1000)), ["k0990", "k0007", "nowhere"]
    found = joined([big, small], [9_000, 27], memory_bytes=4_000)
    assert groups(found) == [*big, "nowhere"]
    assert lines(found[7]) == [(0, 8), (1, 2)]
    assert lines(found[990]) == [(0, 991), (1, 1)]


def test_the_rows_of_the_big_source_do_not_wait_while_the_small_one_is_read() -> None:
    """Otherwise 30 long rows would wait for 30 short ones and exceed the bound."""
    keys = numbered(range(100))
    big = Stream(iter(items(0, keys, 1_000)), 100_000)
    small = Stream(iter(items(1, keys[:-31:-1])), 270)
    found = join([big, small], folder=NOWHERE, memory_bytes=40_000)
    assert groups(list(found)) == keys


def test_a_source_that_is_bigger_than_announced_is_not_read_whole_first() -> None:
    """With a wrong size some rows wait, and no file is created."""
    keys = numbered(range(1000))
    assert groups(joined([keys, keys], [9_000, 27], memory_bytes=40_000)) == keys


@pytest.mark.parametrize(
    ("sizes", "stored"),
    [([900, 9_000, 1_800], [0, 2]), ([9_000, 900, 1_800], [1, 2]), ([None, 9_000, 1_800], [0, 1])],
    ids=["the second is biggest", "the first is biggest", "not all sizes are known"],
)
def test_all_but_the_biggest_are_stored(sizes: list[int | None], stored: list[int], tmp_path: Path) -> None:
    """The spilled sources are read whole first; without sizes the source with the longest rows is the biggest."""
    order: list[int] = []

    def noted(source: int) -> Iterator[KeyedRow | Other]:
        for item in items(source, [f"{source}{n}" for n in range(3)], content_bytes=9 + source):
            order.append(source)
            yield item

    list(join([Stream(noted(n), size) for n, size in enumerate(sizes)], folder=tmp_path, memory_bytes=1_300))
    biggest = ({0, 1, 2} - set(stored)).pop()
    assert order == [0, 1, 2, *stored[:1] * 2, *stored[1:] * 2, biggest, biggest]


def test_rows_in_another_order_find_each_other_on_disk(tmp_path: Path) -> None:
    """Groups are yielded in the order of the biggest source, then the rest in the order it was spilled."""
    big, small = numbered(range(400)), numbered(range(200, 600))
    random.Random(5).shuffle(small)  # noqa: S311 - test data
    found = joined([small, big], [400, 4_000], memory_bytes=0, folder=tmp_path)
    assert groups(found) == [*big, *(key for key in small if key >= "k0400")]
    assert lines(found[250]) == [(0, small.index("k0250") + 1), (1, 251)]
    assert groups(found, late=True) == []


def test_extracted_values_are_kept_in_memory_only(tmp_path: Path) -> None:
    """After a spill the values are None, and the row is unchanged."""
    kept, read_back = joined([["a"], ["a"]]), joined([["a"], ["a"]], [9, 90], memory_bytes=0, folder=tmp_path)
    values = [[keyed.values for keyed in group.rows] for found in (kept, read_back) for group in found]  # type: ignore[union-attr]
    assert values == [[b"sliced", b"sliced"], [None, b"sliced"]]
    rows = [[keyed.row for keyed in group.rows] for found in (kept, read_back) for group in found]  # type: ignore[union-attr]
    assert rows[0] == rows[1]


def test_extracted_values_count_as_waiting() -> None:
    """A row with extracted values counts with twice its length."""
    bare = [
        [KeyedRow("a", keyed.row)] for n in (0, 1) for keyed in items(n, ["a"], 1_000) if isinstance(keyed, KeyedRow)
    ]
    without: list[Stream[Other]] = [Stream(iter(rows), None) for rows in bare]
    found = join(without, folder=NOWHERE, memory_bytes=2_000)
    assert len(list(found)) == 1
    with_values: list[Stream[Other]] = [Stream(iter(items(n, ["a"], 1_000)), None) for n in (0, 1)]
    sliced = join(with_values, folder=NOWHERE, memory_bytes=2_000)
    with pytest.raises(ConfigError, match=f"^{NOWHERE}: cannot create a file"):
        list(sliced)


def test_rows_of_very_different_lengths_come_back_whole(tmp_path: Path) -> None:
    """A row that is far longer than the others is read in two steps."""
    rows = items(0, ["long"], 3_000_000) + items(0, numbered(range(50)), 10)
    found = list(join([Stream(iter(rows), 1), Stream(iter(items(1, ["x"])), 9)], folder=tmp_path, memory_bytes=0))
    assert [len(group.rows[0].row.content) for group in found if isinstance(group, Group)] == [9, 3_000_000, *[10] * 50]


def test_a_duplicate_joins_its_group_while_that_waits() -> None:
    """Two rows of one source and one of the other become one group."""
    found = joined([["a", "a", "b"], ["b", "a", "b"]])
    assert [(g.key, g.late, lines(g)) for g in found if isinstance(g, Group)] == [
        ("b", False, [(0, 3), (1, 1)]),
        ("a", False, [(0, 1), (0, 2), (1, 2)]),
        ("b", True, [(1, 3)]),
    ]


@pytest.mark.parametrize("memory_bytes", [0, MEMORY_BYTES])
def test_a_duplicate_after_its_group_is_late(memory_bytes: int, tmp_path: Path) -> None:
    """It is a group of its own, with and without a spill."""
    found = joined([["a", "b"], ["a", "b", None, "a"]], [9, 900], memory_bytes=memory_bytes, folder=tmp_path)
    assert [(g.key, g.late, len(g.rows)) if isinstance(g, Group) else g for g in found] == [
        ("a", False, 2),
        ("b", False, 2),
        Other(1, 3),
        ("a", True, 1),
    ]


def test_a_duplicate_that_would_be_stored_after_its_group_is_late(tmp_path: Path) -> None:
    """Its group was yielded before anything was spilled."""
    found = joined([["a", "b", "a", "c"], ["a", "d", "c"]], [9, 900], memory_bytes=600, folder=tmp_path)
    assert [(g.key, g.late, lines(g)) for g in found if isinstance(g, Group)] == [
        ("a", False, [(0, 1), (1, 1)]),
        ("a", True, [(0, 3)]),
        ("c", False, [(0, 4), (1, 3)]),
        ("b", False, [(0, 2)]),
        ("d", False, [(1, 2)]),
    ]


def test_what_is_no_row_comes_out_before_more_is_read() -> None:
    """A rejected line is yielded before the next line is read."""
    read: list[int] = []

    def noted() -> Iterator[Item]:
        for item in items(0, ["a", None, "b"]):
            read.append(item.line if isinstance(item, Other) else item.row.line)
            yield item

    found = join([Stream(noted(), None), Stream(iter(items(1, ["b", "a"])), None)], folder=NOWHERE)
    assert next(found) == Other(0, 2)
    assert read == [1, 2]


def test_no_sources_and_empty_sources_give_nothing() -> None:
    """An empty join ends at once."""
    assert joined([]) == joined([[], []]) == []


def test_a_file_is_there_while_it_is_needed_and_never_has_a_name(tmp_path: Path) -> None:
    """A process that is killed leaves nothing behind."""
    keys = numbered(range(50))
    found = join(streams([keys, keys[::-1]]), folder=tmp_path, memory_bytes=2_000)
    next(found)
    assert (open_files(tmp_path), list(tmp_path.iterdir())) == (1, [])
    assert len(list(found)) == 49
    assert (open_files(tmp_path), list(tmp_path.iterdir())) == (0, [])


def test_a_join_that_is_closed_leaves_nothing(tmp_path: Path) -> None:
    """The caller may stop before the end."""
    keys = numbered(range(50))
    found = join(streams([keys, keys[::-1]]), folder=tmp_path, memory_bytes=2_000)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert (open_files(tmp_path), list(tmp_path.iterdir())) == (0, [])


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The error reaches the caller unchanged."""

    def failing() -> Iterator[Item]:
        yield from items(0, numbered(range(50)))
        raise RetriableError("the store is away")

    with pytest.raises(RetriableError, match="the store is away"):
        list(join([Stream(failing(), 9), Stream(iter(items(1, ["x"])), 99)], folder=tmp_path, memory_bytes=0))
    assert (open_files(tmp_path), list(tmp_path.iterdir())) == (0, [])


def test_a_folder_that_is_not_there_is_named() -> None:
    """The error names the folder and the remedy."""
    with pytest.raises(ConfigError, match=r"there/is/no/such/folder: cannot create a file .*give a folder"):
        joined([["a"], ["b"]], memory_bytes=0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
    mounted = subprocess.run(command, check=False, capture_output=True)  # noqa: S603 - the system's mount
    if mounted.returncode:
        pytest.skip("only root can mount a disk")
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)  # noqa: S603, S607 - as above


FULL = r"no space for rows .*: at least \d+ bytes .* another folder or more memory$"


def test_a_full_disk_is_a_retriable_error(small_disk: Path) -> None:
    """The error names the folder, the bytes needed as far as known, and the remedy."""
    rows = items(0, numbered(range(40)), 100_000)
    found = join([Stream(iter(rows), 4_000_000), Stream(iter([]), 5_000_000)], folder=small_disk, memory_bytes=0)
    with pytest.raises(RetriableError, match=f"^{small_disk}: {FULL}") as error:
        list(found)
    assert "(No space left on device): at least 4000000 bytes" in str(error.value)
    assert open_files(small_disk) == 0


def test_a_limit_on_files_is_an_error_of_the_same_kind(tmp_path: Path) -> None:
    """A quota is reported like a full disk, also in the last write."""
    program = f"""
import resource
from pathlib import Path
from opensearch_batch.core.ingest.join import Stream, join
from tests.core.ingest.test_join import items, numbered
resource.setrlimit(resource.RLIMIT_FSIZE, (4_200_000, 4_200_000))
rows = items(0, numbered(range(40)), 100_000)
streams = [Stream(iter(rows), None), Stream(iter(items(1, ["x"], 200_000)), None)]
list(join(streams, folder=Path({str(tmp_path)!r}), memory_bytes=400_000))
"""
    done = subprocess.run(  # noqa: S603 - this very file
        [sys.executable, "-c", program], env={"PYTHONPATH": ".:plugins"}, check=False, capture_output=True, text=True
    )
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"opensearch_batch.core.errors.RetriableError: {tmp_path}: no space for rows")
    assert "(File too large): at least 4201677 bytes are needed, 4200000 could be written" in last


def test_an_entry_is_matched_at_its_own_offset_only() -> None:
    """A match across two entries is not an entry."""
    keys = KeyTable()
    other = bytes(range(13))
    keys.add(other, 0x4142434445)
    across = other[:2] + other[7:] + b"ABCDE"
    assert not keys.is_claimed(across)
    assert keys.claim(across) == []
    assert keys.is_claimed(across)
    assert keys.claim(other) == [0x4142434445]
    assert keys.claim(other) is None


def test_a_key_is_matched_at_its_own_offset_only() -> None:
    """A match across two keys is not a key."""
    met = SeenKeys()
    first, second = b"AB" + bytes(range(8)), b"AB" + bytes(range(8, 16))
    assert met.add(first)
    assert met.add(second)
    assert met.add(b"AB" + bytes(range(4, 12)))
    assert not met.add(first)
    assert not met.add(second)
    assert met.add(b"AC" + first[2:])
