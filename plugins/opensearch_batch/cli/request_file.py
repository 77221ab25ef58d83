"""Reads a request file. Relative paths are resolved against its folder; for stdin, against the current folder.

So a file names the same sources whatever the current folder is, and a repeated request is recognized.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import msgspec

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.batch_ingestion import BatchIngestion, Credential, parse_request
from opensearch_batch.core.storage.objects import split_uri

STDIN = "-"
_GLOB = re.compile(r"[*?]")


class RequestFile(msgspec.Struct, frozen=True):
    """A request with absolute locations, and the name of its file."""

    batch: BatchIngestion
    name: str


def read_request(name: str) -> RequestFile:
    """Read a request (``-``: stdin); raise ConfigError if it is invalid, or has placeholders of the documentation."""
    if name == STDIN:
        location, content, folder = "stdin", sys.stdin.buffer.read(), Path.cwd()
    else:
        location, content, folder = name, _content(Path(name)), Path(name).resolve().parent
    batch = parse_request(content, location)
    _refuse_placeholders(batch, location)
    return RequestFile(_with_absolute_locations(batch, folder), name)


def default_work_prefix(batch: BatchIngestion) -> str:
    """Return the default work prefix: in the first source's bucket or folder; for openai, in the current folder."""
    first = batch.sources[0]
    if batch.type == "s3":
        return f"s3://{split_uri(first)[0]}/_opensearch_batch"
    if batch.type == "local":
        return f"{_GLOB.split(first)[0].rpartition('/')[0]}/.opensearch_batch"
    return str(Path.cwd() / ".opensearch_batch")


def absolute(location: str, folder: Path) -> str:
    """Make a path absolute and keep its trailing slash; return a URI unchanged."""
    return location if "://" in location else os.path.join(folder, location)  # noqa: PTH118 - Path drops a last slash


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the request ({error.strerror}); pass a file, or - for stdin") from None


def _with_absolute_locations(batch: BatchIngestion, folder: Path) -> BatchIngestion:
    return msgspec.structs.replace(
        batch,
        sources=[absolute(source, folder) for source in batch.sources] if batch.type == "local" else batch.sources,
        work_prefix=batch.work_prefix and absolute(batch.work_prefix, folder),
        dead_letters=batch.dead_letters and absolute(batch.dead_letters, folder),
    )


def _refuse_placeholders(batch: BatchIngestion, location: str) -> None:
    credential = msgspec.structs.asdict(batch.credential or Credential())
    values = {f"credential.{name}": value for name, value in credential.items() if value}
    values |= {f"data_source.source[{number}]": source for number, source in enumerate(batch.sources)}
    for name, value in values.items():
        if re.search(r"<you[^<>]*>", value):
            raise ConfigError(f"{location}: {name} contains a placeholder from OpenSearch's documentation; replace it")
