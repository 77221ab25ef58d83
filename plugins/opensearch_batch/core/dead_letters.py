"""A record that could not be done is kept with its bytes, where it came from, the stage and the reason.

Dead letters are spooled to a local file while a stage runs and written as one object at its end, so a stage that is
repeated writes the same object again and nothing twice.
"""

from __future__ import annotations

import base64
import tempfile
from types import TracebackType
from typing import Self

import msgspec

from opensearch_batch.core.objects import Objects

SPOOL_BYTES = 1 << 20


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record that could not be done.

    `record` is its text; bytes that are no UTF-8 stand in `record_base64` instead. `source` and `line` name the
    user's own document where that is known; `output` and `output_line` the service's row, for stage ingest.
    """

    stage: str
    reason: str
    source: str
    line: int
    record: str | None = None
    record_base64: str | None = None
    id: str | None = None
    output: str | None = None
    output_line: int | None = None


def dead_letter(
    content: bytes,
    *,
    stage: str,
    reason: str,
    source: str,
    line: int,
    id: str | None = None,  # noqa: A002 - the field's own name
    output: str | None = None,
    output_line: int | None = None,
) -> DeadLetter:
    """Make a dead letter of a record's bytes, whatever they are."""
    text, coded = None, None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        coded = base64.b64encode(content).decode()
    return DeadLetter(stage, reason, source, line, text, coded, id, output, output_line)


class DeadLetters:
    """Collects the dead letters of one stage and writes them to `uri` as one object; none leave no object."""

    def __init__(self, objects: Objects, uri: str) -> None:
        self.uri = uri
        self.count = 0
        self._objects = objects
        self._spool = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed in __exit__

    def add(self, letter: DeadLetter) -> None:
        """Keep one dead letter."""
        self._spool.write(msgspec.json.encode(letter) + b"\n")
        self.count += 1

    @property
    def location(self) -> str | None:
        """Where the dead letters lie, None when there are none."""
        return self.uri if self.count else None

    def write(self) -> None:
        """Write what was collected, over what an earlier attempt left; called before the stage records its counts."""
        if self.count:
            self._spool.seek(0)
            self._objects.upload(self.uri, self._spool)
        else:
            self._objects.delete(self.uri)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()
