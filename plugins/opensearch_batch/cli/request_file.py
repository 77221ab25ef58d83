"""A request as it lies on this machine: its relative paths start where its file lies, not where the command is run.

So the same request names the same sources, and its repetition is known, from any folder.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import BatchIngestion, Credential, parse_request
from opensearch_batch.core.storage.objects import split_uri

STDIN = "-"
_GLOB = re.compile(r"[*?]")


class RequestFile(msgspec.Struct, frozen=True):
    """A request with absolute locations, and what its file is called."""

    batch: BatchIngestion
    name: str


def read_request(name: str) -> RequestFile:
    """Read a request; ``-`` is stdin.

    Raises:
        ConfigError: there is no such file, or the request is wrong, or still has a placeholder of the documents.
    """
    if name == STDIN:
        place, content, folder = "stdin", sys.stdin.buffer.read(), Path.cwd()
    else:
        place, content, folder = name, _content(Path(name)), Path(name).resolve().parent
    batch = parse_request(content, place)
    _refuse_placeholders(batch, place)
    return RequestFile(_absolute(batch, folder), name)


def default_work(batch: BatchIngestion) -> str:
    """Return the work prefix of a request that names none: beside its first source."""
    first = batch.sources[0]
    if batch.type == "s3":
        return f"s3://{split_uri(first)[0]}/_opensearch_batch"
    if batch.type == "local":
        return f"{_GLOB.split(first)[0].rpartition('/')[0]}/.opensearch_batch"
    return str(Path.cwd() / ".opensearch_batch")


def absolute(location: str, folder: Path) -> str:
    """Return a path from the root on, and anything with a scheme as it is; a last slash stays."""
    return location if "://" in location else os.path.join(folder, location)  # noqa: PTH118 - Path drops a last slash


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: the request cannot be read ({error.strerror}); give its file, or - for stdin"
        ) from None


def _absolute(batch: BatchIngestion, folder: Path) -> BatchIngestion:
    return msgspec.structs.replace(
        batch,
        sources=[absolute(source, folder) for source in batch.sources] if batch.type == "local" else batch.sources,
        work=batch.work and absolute(batch.work, folder),
        dead_letters=batch.dead_letters and absolute(batch.dead_letters, folder),
    )


def _refuse_placeholders(batch: BatchIngestion, place: str) -> None:
    own = msgspec.structs.asdict(batch.credential or Credential())
    given = {f"credential.{name}": value for name, value in own.items() if value}
    given |= {f"data_source.source[{at}]": source for at, source in enumerate(batch.sources)}
    for name, value in given.items():
        if re.search(r"<you[^<>]*>", value):
            raise ConfigError(f"{place}: {name} still is the documents' placeholder; write your own, or leave it out")
