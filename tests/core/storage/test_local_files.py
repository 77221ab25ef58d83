"""Files of this machine: whole or not there, and conditional."""

from __future__ import annotations

import concurrent.futures
import errno
import gzip
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError, FatalError, RetriableError
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from tests.stored import content, present


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """The store, relative to a folder."""
    return LocalFiles(tmp_path)


def test_relative_absolute_and_file_uris_are_the_same_file(files: LocalFiles, tmp_path: Path) -> None:
    """A request names its files as it likes."""
    files.write("a/b.jsonl", b"x")
    for uri in ("a/b.jsonl", str(tmp_path / "a/b.jsonl"), f"file://{tmp_path}/a/b.jsonl"):
        assert content(files, uri) == b"x"
    assert [item.uri for item in find_objects(files, "a/")] == ["a/b.jsonl"]
    assert [item.uri for item in find_objects(files, f"file://{tmp_path}/a/*")] == [f"file://{tmp_path}/a/b.jsonl"]
    assert files.head("a/none") is None
    assert files.read("a/none") is None
    files.delete("a/b.jsonl")
    files.delete("a/b.jsonl")
    assert os.listdir(tmp_path / "a") == []  # noqa: PTH208 - hidden files too


def test_a_glob_finds_compressed_files_in_order(files: LocalFiles) -> None:
    """Hidden temporary files are none of them."""
    for name in ("2.jsonl.gz", "1.jsonl", "3.csv", ".x.new"):
        files.write(f"in/{name}", gzip.compress(b"z\n"))
    assert [Path(item.uri).name for item in find_objects(files, "in/*.jsonl*")] == ["1.jsonl", "2.jsonl.gz"]
    with files.open("in/2.jsonl.gz") as stream:
        assert stream.read() == b"z\n"


def test_files_come_in_the_order_of_their_names_without_our_own(files: LocalFiles) -> None:
    """As keys on S3 would, below the working folder as well as below any other."""
    for name in ("a/z.jsonl", "a.jsonl", "a-b/z.jsonl", ".opensearch_batch/p.jsonl", "a/_opensearch_batch/p.jsonl"):
        files.write(name, b"x")
    assert [item.uri for item in find_objects(files, "**.jsonl")] == ["a-b/z.jsonl", "a.jsonl", "a/z.jsonl"]
    assert list(files.list("none/")) == []


def test_of_many_creators_one_wins(files: LocalFiles) -> None:
    """And what it wrote is whole."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.create("job.json", str(n).encode() * 1000), range(8)))
    assert won.count(True) == 1
    assert content(files, "job.json") == str(won.index(True)).encode() * 1000


def test_of_many_replacements_one_wins(files: LocalFiles) -> None:
    """The ETag that was read is good for one."""
    files.write("job.json", b"0")
    first = present(files.read("job.json"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.replace("job.json", str(n).encode(), etag=first.etag), range(8)))
    assert won.count(True) == 1
    assert not files.replace("none.json", b"1", etag=first.etag)
    assert not files.replace("none/none.json", b"1", etag=first.etag)


def test_a_file_that_changed_is_not_read_as_the_one_that_was_found(files: LocalFiles) -> None:
    """By its ETag."""
    files.write("a", b"1")
    (found,) = find_objects(files, "a")
    files.write("a", b"22")
    with pytest.raises(FatalError, match="changed while it was being read"):
        files.open("a", etag=found.etag)


def test_mistakes_are_named(files: LocalFiles, tmp_path: Path) -> None:
    """Cause, place, remedy."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: this is a folder; write folder/ to read all files below it"):
        find_objects(files, "folder")
    with pytest.raises(ConfigError, match="none: no such file or folder"):
        files.open("none")
    files.write("out-1.jsonl", b"")
    with pytest.raises(ConfigError, match=r"Did you mean 'out-1\.jsonl'"):
        find_objects(files, str(tmp_path / "out-2.jsonl"))


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """Close a folder; root, whom nothing is closed to, is nobody meanwhile."""
    before = os.geteuid()
    folder.chmod(0)
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)
        folder.chmod(0o700)


def test_a_closed_folder_is_an_error_and_no_gap(files: LocalFiles, tmp_path: Path) -> None:
    """A source that cannot be seen is never taken for an empty one."""
    files.write("in/a", b"")
    attempts: list[Callable[[], object]] = [
        lambda: find_objects(files, "in/"),
        lambda: files.head("in/a"),
        lambda: files.read("in/a"),
        lambda: files.open("in/a"),
        lambda: files.write("in/a", b""),
        lambda: files.delete("in/a"),
    ]
    for attempt in attempts:
        with (
            without_rights(tmp_path / "in"),
            pytest.raises(
                ConfigError, match=r"in/a?: not permitted \(Permission denied\); give this user the permission"
            ),
        ):
            attempt()


class Full(io.BytesIO):
    """Content that ends in what the system says when a disk is full."""

    def read(self, size: int | None = -1) -> bytes:
        """Give the content once."""
        if block := super().read(size):
            return block
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(files: LocalFiles, tmp_path: Path) -> None:
    """The same run may succeed when there is room again."""
    files.write("a", b"old")
    with pytest.raises(
        RetriableError, match=r"a: the disk is full \(No space left on device\); free some space and run again"
    ):
        files.upload("a", Full(b"new"))
    assert content(files, "a") == b"old"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208 - hidden files too


def test_a_file_is_on_disk_before_it_has_its_name(
    files: LocalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure leaves the old file or the new one, never an empty one."""
    synced: list[tuple[int, bool]] = []
    monkeypatch.setattr("os.fsync", lambda number: synced.append((os.fstat(number).st_size, (tmp_path / "a").exists())))
    files.write("a", b"new")
    assert synced == [(3, False)]


def test_a_written_file_is_as_open_as_any_other_of_this_user(files: LocalFiles, tmp_path: Path) -> None:
    """The umask decides who may read reports and dead letters."""
    (tmp_path / "other").write_bytes(b"")
    files.write("a", b"")
    assert files.create("b", b"")
    modes = {(tmp_path / name).stat().st_mode for name in ("a", "b", "other")}
    assert len(modes) == 1
