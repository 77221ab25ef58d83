"""One store for all URIs: each goes where its scheme says, and a store is made when it is first needed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.storage.by_uri import Scheme, Stores
from opensearch_batch.core.storage.local_files import LocalFiles
from opensearch_batch.core.storage.objects import find_objects
from opensearch_batch.core.storage.s3 import S3Objects
from tests.stored import present


def refused() -> LocalFiles:
    """Make a store that needs a key."""
    raise ConfigError("no key; give one")


FILES_AT_A_SERVICE = Scheme(refused, bare_id="file-[A-Za-z0-9_-]+")


def local(folder: Path) -> Scheme:
    """Return the scheme of files in a folder."""
    return Scheme(lambda: LocalFiles(folder))


def test_a_store_is_asked_for_only_when_its_uris_come(tmp_path: Path) -> None:
    """Files can be ingested without keys for S3, and an error names what is missing."""
    stores = Stores({"file": local(tmp_path), "openai": FILES_AT_A_SERVICE})
    stores.write("a", b"1")
    assert [item.size_bytes for item in find_objects(stores, "a")] == [1]
    for uri in ("file-abc", "openai://file-abc"):
        with pytest.raises(ConfigError, match=f"{uri}: no key; give one"):
            stores.open(uri)
    with pytest.raises(ConfigError, match="s3://b/k: unknown scheme s3://"):
        stores.head("s3://b/k")
    with pytest.raises(ConfigError, match="local files are not supported here"):
        Stores({}).head("/etc/passwd")


def test_prefixes_have_stores_of_their_own(tmp_path: Path) -> None:
    """Below them, whatever the scheme; a folder with a longer name is not below."""
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    stores = Stores({"s3": local(tmp_path / "theirs")}, below={"s3://work/": lambda: LocalFiles(tmp_path / "ours")})
    assert stores._store("s3://work/a") is stores._store("s3://work/b")  # noqa: SLF001 - which store it is
    assert stores._store("s3://work/a") is not stores._store("s3://works/a")  # noqa: SLF001
    assert stores._store("s3://works/a") is stores._store("s3://other/a")  # noqa: SLF001
    refusing = Stores({}, below={"s3://work/": refused})
    with pytest.raises(ConfigError, match="s3://work/a: no key; give one"):
        refusing.head("s3://work/a")


def test_every_operation_goes_where_the_uri_says(store: S3Objects, bucket: str, tmp_path: Path) -> None:
    """S3 and this machine side by side."""
    stores = Stores({"s3": Scheme(lambda: store), "file": local(tmp_path)})
    for place in (f"s3://{bucket}", str(tmp_path), f"file://{tmp_path}"):
        uri = f"{place}/a.jsonl"
        assert stores.create(uri, b"1")
        assert not stores.create(uri, b"2")
        stored = present(stores.read(uri))
        assert stores.replace(uri, b"22", etag=stored.etag)
        assert not stores.replace(uri, b"333", etag=stored.etag)
        (found,) = stores.list(f"{place}/")
        assert found == stores.head(uri)
        with stores.open(uri, etag=found.etag) as stream:
            assert stream.read() == b"22"
        stores.upload(uri, io.BytesIO(b"4"))
        stores.delete(uri)
        assert stores.read(uri) is None


def test_a_store_is_made_once(store: S3Objects, bucket: str) -> None:
    """Its connections are kept."""
    made: list[S3Objects] = []

    def make() -> S3Objects:
        made.append(store)
        return store

    stores = Stores({"s3": Scheme(make)})
    assert made == []
    stores.head(f"s3://{bucket}/a")
    stores.head(f"s3://{bucket}/b")
    assert made == [store]


def test_a_file_of_this_machine_may_be_called_like_an_id(tmp_path: Path) -> None:
    """A suffix or a folder tells them apart."""
    stores = Stores({"file": local(tmp_path), "openai": FILES_AT_A_SERVICE})
    stores.write("file-1.jsonl", b"1")
    stores.write("./file-1", b"1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file-1", "file-1.jsonl"]
    with pytest.raises(ConfigError, match="file-1: no key; give one"):
        stores.head("file-1")


def test_an_unknown_scheme_is_no_path(tmp_path: Path) -> None:
    """What nobody reads is said, with what is read."""
    stores = Stores({"file": local(tmp_path), "openai": FILES_AT_A_SERVICE})
    with pytest.raises(
        ConfigError,
        match="gs://b/k: unknown scheme gs://; give a URI that starts with one of file://, openai://, or a path",
    ):
        stores.head("gs://b/k")
