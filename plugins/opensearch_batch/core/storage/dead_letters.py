"""Dead letters: records that failed, each with its bytes, its origin, the stage and the reason.

The dead letters of a stage are numbered JSON Lines files (parts) below one prefix. A part is written before the
progress that counts its letters, so a stage that is retried after a crash neither loses nor repeats any.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from types import MappingProxyType
from typing import Self

import msgspec

from opensearch_batch.core.errors import ConfigError, FatalError
from opensearch_batch.core.storage.json_document import UNDECODABLE
from opensearch_batch.core.storage.objects import Objects, lines
from opensearch_batch.core.storage.temporary import Spool
from opensearch_batch.core.types.counts import too_many_dead_letters
from opensearch_batch.core.types.letter_reasons import LetterReason, add_up_reasons, kind_of

SPOOL_BYTES = 1 << 20
PART_SUFFIX, SUMMARY = ".jsonl", "summary.txt"
MAX_LETTER_BYTES = 512 << 20
# Only the reasons of the first letters are counted, so that a log line does not require a long read.
MAX_COUNTED_LETTERS, SHOWN_REASONS, MAX_REASON_CHARS = 10_000, 3, 300
# The kinds of reasons that one stage counts; letters of further kinds are counted together.
MAX_COUNTED_KINDS = 100


class JoinedRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A further row of a record that is joined from several sources: its source number, position and bytes."""

    source_number: int = msgspec.field(name="number")
    source: str
    line: int
    offset: int = 0
    record: str | None = None
    record_base64: str | None = None


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record that failed.

    `record` is its text, or `record_base64` its bytes if they are not UTF-8. `source` and `line` locate the user's
    document if it is known; `output` and `output_line` locate the service's row in stage ingest. `offset` is the start
    of the record in the decompressed `output` if set, else in `source`. `source_number` is the position of the source
    in the request; `joined` are the record's rows in other sources. `late`: the row was read after its document was
    written. `status` is the HTTP status of the index operation. `record_hash` is the digest of the user's record in the
    record ledger (hexadecimal), if `record` is composed of it and of a prediction.
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
    offset: int = 0
    source_number: int = msgspec.field(default=0, name="number")
    status: int = 0
    late: bool = False
    joined: list[JoinedRow] = []
    record_hash: str | None = None


def dead_letter(content: bytes, *, stage: str, reason: str, source: str, line: int, offset: int = 0) -> DeadLetter:
    """Return the dead letter for the bytes of a record."""
    text, encoded = as_text(content)
    return DeadLetter(stage, reason, source, line, text, encoded, offset=offset)


def as_text(content: bytes) -> tuple[str | None, str | None]:
    """Return bytes as ``(text, None)``, or as ``(None, base64)`` if they are not UTF-8."""
    try:
        return content.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(content).decode()


def as_bytes(letter: DeadLetter | JoinedRow) -> bytes:
    """Return the record's bytes."""
    if letter.record_base64 is not None:
        try:
            return base64.b64decode(letter.record_base64)
        except ValueError as error:
            raise ConfigError(
                f"{letter.source}:{letter.line}: record_base64 of this dead letter is not base64 ({error}); correct it"
            ) from None
    return (letter.record or "").encode()


class DeadLetters:
    """Writes the dead letters of one stage below `prefix`, in numbered parts; writes nothing if there are no letters.

    The parts of an `attempt` begin with its id, so that two attempts never write the same part; later ids sort later.
    `parts` has the number of parts that the stage's progress counts, by attempt, `count` the number of letters in them,
    and `reasons` their reasons.
    """

    def __init__(
        self,
        objects: Objects,
        prefix: str,
        *,
        attempt: str = "",
        parts: Mapping[str, int] = MappingProxyType({}),
        count: int = 0,
        reasons: Sequence[LetterReason] = (),
    ) -> None:
        self.prefix = f"{prefix.rstrip('/')}/"
        self.count = count
        self.parts = dict(parts)
        self._attempt = attempt
        self._objects = objects
        self._spool = Spool(SPOOL_BYTES)
        self._spooled = 0
        self._reasons = ReasonCounts(reasons)

    def add(self, letter: DeadLetter) -> None:
        """Add one dead letter."""
        self._spool.write(msgspec.json.encode(letter) + b"\n")
        self._spooled += 1
        self.count += 1
        self._reasons.add(letter)

    @property
    def reasons(self) -> list[LetterReason]:
        """The letters by reason."""
        return self._reasons.total()

    @property
    def location(self) -> str | None:
        """The prefix of the dead letters, None if there are none."""
        return self.prefix if self.count else None

    def write(self) -> int:
        """Write the letters added since the last call as a new part; return the number of all parts.

        Return 0 if no letters were added. Call this method before the stage records its counts.
        """
        if not self._spooled:
            return 0
        number = self.parts.get(self._attempt, 0) + 1
        self._spool.seek(0)
        self._objects.upload(self._part(self._attempt, number), self._spool)
        self._spool.close()
        self._spool, self._spooled = Spool(SPOOL_BYTES), 0
        self.parts[self._attempt] = number
        return sum(self.parts.values())

    def unwritten(self) -> Iterator[DeadLetter]:
        """Yield the letters that were added since the last write; the caller must not add letters meanwhile."""
        self._spool.seek(0)
        for line in self._spool:
            yield msgspec.json.decode(line, type=DeadLetter)

    def withdraw(self) -> None:
        """Delete the last part, because another attempt counts its letters."""
        self._objects.delete(self._part(self._attempt, self.parts[self._attempt]))

    def delete_uncounted_parts(self) -> None:
        """Delete the parts of earlier attempts that the progress does not count; keep the parts of later attempts."""
        counted = {self._part(attempt, at + 1) for attempt, count in self.parts.items() for at in range(count)}
        for uri in list_parts(self._objects, self.prefix):
            if uri not in counted and (not self._attempt or uri < f"{self.prefix}{self._attempt}"):
                self._objects.delete(uri)

    def _part(self, attempt: str, number: int) -> str:
        return f"{self.prefix}{attempt and f'{attempt}-'}{number:05d}{PART_SUFFIX}"

    def close(self) -> None:
        """Discard the letters that were not written."""
        self._spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ReasonCounts:
    """Counts dead letters by reason, after those that were counted `before`; its memory is bounded."""

    def __init__(self, before: Sequence[LetterReason] = ()) -> None:
        self._counts = Counter({kind_of(each.reason): each.count for each in before})
        self._first = {kind_of(each.reason): each for each in before}

    def add(self, letter: DeadLetter) -> None:
        """Count one dead letter."""
        reason = letter.reason[:MAX_REASON_CHARS]
        kind = kind_of(reason)
        if kind not in self._first:
            if len(self._first) < MAX_COUNTED_KINDS:
                record = (letter.record or "")[:MAX_REASON_CHARS]
                self._first[kind] = LetterReason(0, reason, letter.stage, letter.source, letter.line, letter.id, record)
            else:
                kind = ""
        self._counts[kind] += 1

    def total(self) -> list[LetterReason]:
        """Return the reasons, the most common first."""
        first = self._first | ({} if "" in self._first else {"": LetterReason(0)})
        return add_up_reasons(msgspec.structs.replace(first[kind], count=count) for kind, count in self._counts.items())


def read_letters(objects: Objects, uri: str) -> Iterator[DeadLetter]:
    """Yield the dead letters of one part."""
    with objects.open(uri) as stream:
        for line in lines(stream, max_line_bytes=MAX_LETTER_BYTES):
            if line.content.strip():
                try:
                    yield msgspec.json.decode(line.content, type=DeadLetter)
                except UNDECODABLE as error:
                    raise ConfigError(
                        f"{uri}:{line.number}: not a dead letter ({error}); correct this line or delete it"
                    ) from None


def count_letters(objects: Objects, prefix: str) -> tuple[int, Counter[int], list[LetterReason]]:
    """Return the number of dead letters below a prefix, that of their rows by source number, and their reasons."""
    count, rows, reasons = 0, Counter[int](), ReasonCounts()
    for uri in list_parts(objects, prefix):
        for letter in read_letters(objects, uri):
            count += 1
            rows.update([letter.source_number, *(row.source_number for row in letter.joined)])
            reasons.add(letter)
    return count, rows, reasons.total()


def most_common_reasons(objects: Objects, prefixes: Sequence[str]) -> list[tuple[DeadLetter, int]]:
    """Return the first dead letter of each of the three most common reasons below prefixes, and their counts.

    Reasons that differ only in numbers or quoted values count as one reason.
    """
    parts = chain.from_iterable(list_parts(objects, prefix) for prefix in prefixes)
    letters = chain.from_iterable(read_letters(objects, part) for part in parts)
    counts, first = Counter[str](), dict[str, DeadLetter]()
    for letter in islice(letters, MAX_COUNTED_LETTERS):
        kind = kind_of(letter.reason)
        counts[kind] += 1
        first.setdefault(kind, letter)
    return [(first[kind], count) for kind, count in counts.most_common(SHOWN_REASONS)]


def refuse_dead_letters(
    objects: Objects, dead_letters: int, *, read: int, max_share: str, locations: Sequence[str | None]
) -> None:
    """Raise FatalError if the dead letters exceed a share of the records that were read, such as ``5%``."""
    if not too_many_dead_letters(dead_letters, read=read, max_share=max_share):
        return
    prefixes = [location for location in locations if location]
    reasons = [
        f"{count:,} x {letter.reason[:MAX_REASON_CHARS]}" for letter, count in most_common_reasons(objects, prefixes)
    ]
    raise FatalError(
        f"{dead_letters:,} of {read:,} records are dead letters, and max_dead_letters is {max_share}: "
        f"{'; '.join(reasons)}. Correct their cause and replay them, or raise max_dead_letters; "
        f"they are in {', '.join(prefixes)}"
    )


def write_summary(objects: Objects, prefix: str) -> str:
    """Write a text file beside the parts: the most common reasons, each with an example; return its location.

    A browser displays this file. It only downloads the parts, which are JSON Lines with whole records.
    """
    text = [
        f"Dead letters in {prefix}",
        f"The most common reasons of the first {MAX_COUNTED_LETTERS:,}, each with its first record:",
    ]
    for letter, count in most_common_reasons(objects, [prefix]):
        record = letter.record if letter.record is not None else f"base64 {letter.record_base64}"
        text += [
            "",
            f"{count:,} x {letter.reason[:MAX_REASON_CHARS]}",
            f"    {letter.source} line {letter.line}",
            f"    {record[:MAX_REASON_CHARS]}",
        ]
    uri = f"{prefix.rstrip('/')}/{SUMMARY}"
    objects.write(uri, "\n".join([*text, ""]).encode())
    return uri


def list_parts(objects: Objects, prefix: str) -> list[str]:
    """Return the URIs of the parts below a prefix, in order; the prefix may also be the URI of one part."""
    return list(iter_parts(objects, prefix))


def iter_parts(objects: Objects, prefix: str) -> Iterator[str]:
    """Yield the URIs of the parts below a prefix, in order, as they are listed."""
    return (item.uri for item in objects.list(prefix) if item.uri.endswith(PART_SUFFIX))
