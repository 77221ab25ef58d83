"""Files of this machine: whole or not there, and conditional."""

from __future__ import annotations

import concurrent.futures
import gzip
import os
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.local_files import LocalFiles
from opensearch_batch.core.objects import find
from opensearch_batch.core.stores import Stores


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """The store, relative to a folder."""
    return LocalFiles(tmp_path)


def test_relative_absolute_and_file_uris_are_the_same_file(files: LocalFiles, tmp_path: Path) -> None:
    """A request names its files as it likes."""
    files.write("a/b.jsonl", b"x")
    for uri in ("a/b.jsonl", str(tmp_path / "a/b.jsonl"), f"file://{tmp_path}/a/b.jsonl"):
        stored = files.read(uri)
        assert stored is not None
        assert stored.content == b"x"
    assert [item.uri for item in find(files, "a/")] == ["a/b.jsonl"]
    assert [item.uri for item in find(files, f"file://{tmp_path}/a/*")] == [f"file://{tmp_path}/a/b.jsonl"]
    assert files.head("a/none") is None
    assert files.read("a/none") is None
    files.delete("a/b.jsonl")
    files.delete("a/b.jsonl")
    assert os.listdir(tmp_path / "a") == []  # noqa: PTH208 - hidden files too


def test_a_glob_finds_compressed_files_in_order(files: LocalFiles) -> None:
    """Hidden temporary files are none of them."""
    for name in ("2.jsonl.gz", "1.jsonl", "3.csv", ".x.new"):
        files.write(f"in/{name}", gzip.compress(b"z\n"))
    assert [Path(item.uri).name for item in find(files, "in/*.jsonl*")] == ["1.jsonl", "2.jsonl.gz"]
    with files.open("in/2.jsonl.gz") as stream:
        assert stream.read() == b"z\n"


def test_of_many_creators_one_wins(files: LocalFiles) -> None:
    """And what it wrote is whole."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.create("job.json", str(n).encode() * 1000), range(8)))
    assert won.count(True) == 1
    stored = files.read("job.json")
    assert stored is not None
    assert stored.content == str(won.index(True)).encode() * 1000


def test_of_many_replacements_one_wins(files: LocalFiles) -> None:
    """The ETag that was read is good for one."""
    files.write("job.json", b"0")
    first = files.read("job.json")
    assert first is not None
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: files.replace("job.json", str(n).encode(), etag=first.etag), range(8)))
    assert won.count(True) == 1
    assert not files.replace("none.json", b"1", etag=first.etag)


def test_a_file_that_changed_is_not_read_as_the_one_that_was_found(files: LocalFiles) -> None:
    """By its ETag."""
    files.write("a", b"1")
    (found,) = find(files, "a")
    files.write("a", b"22")
    with pytest.raises(FatalError, match="changed while it was being read"):
        files.open("a", etag=found.etag)


def test_mistakes_are_named(files: LocalFiles, tmp_path: Path) -> None:
    """Cause, place, remedy."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: this is a folder; write folder/ for all files below it"):
        find(files, "folder")
    with pytest.raises(ConfigError, match="none: there is no such file or folder"):
        files.open("none")
    files.write("out-1.jsonl", b"")
    with pytest.raises(ConfigError, match=r"Did you mean 'out-1\.jsonl'"):
        find(files, str(tmp_path / "out-2.jsonl"))


def test_a_store_is_asked_for_only_when_its_uris_come(tmp_path: Path) -> None:
    """Who has no keys for S3 can ingest files, and what is missing is said."""
    stores = Stores(local=lambda: LocalFiles(tmp_path))
    stores.write("a", b"1")
    assert [item.size_bytes for item in find(stores, "a")] == [1]
    with pytest.raises(ConfigError, match="s3://b/k: S3 is not set up here; give an AWS connection or keys"):
        stores.head("s3://b/k")
    for uri in ("file-abc", "openai://file-abc"):
        with pytest.raises(ConfigError, match="OpenAI is not set up here; give a connection or a key"):
            stores.open(uri)
    with pytest.raises(ConfigError, match="files of this machine are not read here"):
        Stores().head("/etc/passwd")
