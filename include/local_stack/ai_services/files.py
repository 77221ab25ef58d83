"""Files that a service holds itself. A file never changes under its id, and is gone only when it is deleted.

Beside the bytes lies what is known of them; it is written last, so that a file is there whole or not at all.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec
from fastapi.responses import StreamingResponse

CHUNK_BYTES = 1 << 16


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file as OpenAI's API shows it; `created_at` is in seconds since the epoch."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    object: str = "file"
    status: str = "processed"


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


About = TypeVar("About", bound=_HasId)


class UnknownFileError(LookupError):
    """There is no file of this id."""


class TransferBrokenError(RuntimeError):
    """Raised in the middle of an answer, so that the server closes the connection."""


class FileStore(Generic[About]):
    """The files below one folder, each of one part or several."""

    def __init__(self, folder: Path, kind: type[About]) -> None:
        self._folder = folder
        self._kind = kind
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, about: About, parts: Sequence[Path]) -> About:
        """Take the parts over, from wherever they lie, as a file; one of the same id is replaced."""
        for number, part in enumerate(parts):
            shutil.move(part, self.path(about.id, number))
        temporary = self._about(about.id).with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(about))
        temporary.replace(self._about(about.id))
        return about

    def get(self, file_id: str) -> About:
        """Return what is known of a file.

        Raises:
            UnknownFileError: there is none.
        """
        try:
            return msgspec.json.decode(self._about(file_id).read_bytes(), type=self._kind)
        except FileNotFoundError:
            raise UnknownFileError(file_id) from None

    def all(self) -> list[About]:
        """Return what is known of all files."""
        return [msgspec.json.decode(path.read_bytes(), type=self._kind) for path in self._folder.glob("*.json")]

    def delete(self, file_id: str) -> None:
        """Remove a file.

        Raises:
            UnknownFileError: there is none.
        """
        self.get(file_id)
        self._about(file_id).unlink()
        for part in self._folder.glob(f"{file_id}.part*"):
            part.unlink()

    def path(self, file_id: str, part: int = 0) -> Path:
        """Where the bytes of a part lie."""
        return self._folder / f"{_checked(file_id)}.part{part}"

    def _about(self, file_id: str) -> Path:
        return self._folder / f"{_checked(file_id)}.json"


def streamed(path: Path, *, cut: bool) -> StreamingResponse:
    """Answer with a file's bytes; `cut` closes the connection in the middle of them."""
    size_bytes = path.stat().st_size
    return StreamingResponse(
        _chunks(path, stop_at=size_bytes // 2 if cut else None),
        media_type="application/octet-stream",
        headers={"content-length": str(size_bytes)},
    )


def _chunks(path: Path, *, stop_at: int | None) -> Iterator[bytes]:
    sent = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if stop_at is not None and sent + len(chunk) > stop_at:
                yield chunk[: stop_at - sent]
                raise TransferBrokenError
            sent += len(chunk)
            yield chunk


def _checked(file_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+", file_id):
        raise UnknownFileError(file_id)
    return file_id
