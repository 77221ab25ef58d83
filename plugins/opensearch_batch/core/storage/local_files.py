"""Object store on local files, with atomic and conditional writes like those of S3."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from opensearch_batch.core.errors import ConfigError, FatalError, ObjectChanged, RetriableError
from opensearch_batch.core.storage.compression import decompressed
from opensearch_batch.core.storage.globs import is_selected
from opensearch_batch.core.storage.objects import READ_BUFFER_BYTES, Stored
from opensearch_batch.core.types.object_info import Compression, ObjectInfo

SCHEME = "file://"
LOCK, NEW = ".lock", ".new"


class LocalFiles:
    """Files by path or ``file://`` URI; relative paths are resolved against `folder`.

    A file's ETag consists of its size, its modification time in nanoseconds and its inode.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path.cwd()

    def list(
        self,
        uri: str,
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        after: str = "",
        limit: int | None = None,  # noqa: ARG002 - files are not returned in pages
    ) -> Iterator[ObjectInfo]:
        """Yield the files whose URI starts with `uri`, sorted by name."""
        parent, _, name_start = uri.rpartition("/")
        with _errors(uri):
            folder = self._path(f"{parent}/" if parent or uri.startswith("/") else ".")
            for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in _files(folder)):
                file_uri = uri[: len(uri) - len(name_start)] + name
                if name.startswith(name_start) and file_uri > after and is_selected(name, include, exclude):
                    yield _info(file_uri, path)

    def head(self, uri: str) -> ObjectInfo | None:
        """Return the metadata of a file, None if it is absent; raise ConfigError if it is a folder."""
        with _errors(uri):
            path = self._path(uri)
            if path.is_dir():
                raise ConfigError(f"{uri}: this is a folder; write {uri.rstrip('/')}/ to read all files below it")
            return _info(uri, path) if path.exists() else None

    def read(self, uri: str) -> Stored | None:
        with _errors(uri):
            path = self._path(uri)
            try:
                with path.open("rb") as file:
                    return Stored(file.read(), _etag(os.fstat(file.fileno())))
            except FileNotFoundError:
                return None

    def write(self, uri: str, content: bytes) -> None:
        self.upload(uri, io.BytesIO(content))

    def create(self, uri: str, content: bytes) -> bool:
        with _errors(uri), self._temporary_file(uri, io.BytesIO(content)) as (temporary, path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            return True

    def replace(self, uri: str, content: bytes, *, etag: str) -> bool:
        if self.head(uri) is None:
            return False
        with _errors(uri), _locked(self._path(uri).parent):
            current = self.head(uri)
            if current is None or current.etag != etag:
                return False
            self.upload(uri, io.BytesIO(content))
            return True

    def upload(self, uri: str, content: IO[bytes]) -> None:
        """Write a file of any size; a reader sees the whole old file or the whole new one."""
        with _errors(uri), self._temporary_file(uri, content) as (temporary, path):
            temporary.replace(path)

    def delete(self, uri: str) -> None:
        with _errors(uri):
            self._path(uri).unlink(missing_ok=True)

    def open(
        self, uri: str, *, etag: str | None = None, compression: Compression | None = None, offset: int = 0
    ) -> IO[bytes]:
        """Open a file for streaming, decompressed as `compression`; by default, its extension decides.

        Reading starts at `offset`, which must be 0 for a compressed file. Raise ConfigError if the file is missing, or
        access is denied; ObjectChanged if its ETag is not `etag`.
        """
        with _errors(uri):
            file = self._path(uri).open("rb", buffering=READ_BUFFER_BYTES)
            if etag is not None and _etag(os.fstat(file.fileno())) != etag:
                file.close()
                raise ObjectChanged(f"{uri} changed while it was being read; run again")
            file.seek(offset)
            return decompressed(file, uri, compression)

    def _path(self, uri: str) -> Path:
        return self._folder / uri.removeprefix(SCHEME)

    @contextmanager
    def _temporary_file(self, uri: str, content: IO[bytes]) -> Iterator[tuple[Path, Path]]:
        """Write a temporary file in the folder of `uri`, sync it to disk, yield both paths; delete it at the end."""
        path = self._path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        # `tempfile` is not used, because only the current user could read its files.
        temporary = path.parent / f".{secrets.token_hex(8)}{NEW}"
        with temporary.open("xb") as file:
            try:
                shutil.copyfileobj(content, file, READ_BUFFER_BYTES)
                file.flush()
                os.fsync(file.fileno())
                yield temporary, path
            finally:
                temporary.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, without this module's own files; raise if a folder cannot be read."""
    for parent, _, names in os.walk(folder, onerror=_raise_unless_absent):
        for name in names:
            is_own = name == LOCK or (name.startswith(".") and name.endswith(NEW))
            if not is_own and (path := Path(parent, name)).is_file():
                yield path


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _info(uri: str, path: Path) -> ObjectInfo:
    status = path.stat()
    return ObjectInfo(uri, status.st_size, _etag(status), status.st_mtime)


def _etag(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock under which `replace` compares and writes; the kernel releases it when the process dies."""
    with (folder / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError(f"{uri}: no such file or folder") from error
    except PermissionError as error:
        raise ConfigError(f"{uri}: not permitted ({error.strerror}); give this user the permission") from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{uri}: {error.strerror}; name a file, or a folder with a trailing /") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RetriableError(
                f"{uri}: the disk is full ({error.strerror}); free some space and run again"
            ) from error
        raise FatalError(f"{uri}: {error.strerror or error}") from error
