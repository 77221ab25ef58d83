"""Dead letters of a run by reason, with samples: the counts are stored, and only a bounded part of them is read."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from opensearch_batch.core.runs.run_details import MAX_READS
from opensearch_batch.core.runs.run_reading import read_run
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget
from opensearch_batch.core.storage.dead_letters import DeadLetter, list_parts, read_letters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.letter_reasons import LetterReason, kind_of

SHOWN_LETTERS, MAX_READ_LETTERS, MAX_READ_CHARS = 20, 1_000, 16 << 20


class DeadLettersOfRun(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of a run.

    Attributes:
        count: the number that the run counted, of all stages; a later replay does not change it.
        reasons: the counted ones by reason, the most common first, each with its first letter.
        locations: their prefixes; `replay` takes one of them.
        samples: letters as they are now: those of the asked reason, or the first of each reason.
        read: how many letters were read for the samples.
        is_complete: whether these are all that there are now.
    """

    pipeline: str
    run_key: str
    count: int
    reasons: list[LetterReason]
    locations: list[str]
    samples: list[DeadLetter]
    read: int = 0
    is_complete: bool = True


def dead_letters_of_run(
    reader: CachedReader,
    layout: Layout,
    run_key: str,
    *,
    reason: str | None = None,
    limit: int = SHOWN_LETTERS,
    max_letters: int | None = MAX_READ_LETTERS,
) -> DeadLettersOfRun:
    """Return the dead letters of a run, with at most `limit` samples from at most `max_letters` letters.

    With `reason`, the samples are the letters whose reason contains this text, else the first letter of each reason.

    Raises:
        ConfigError: there is no such run.
    """
    run = read_run(reader, layout, run_key, ReadBudget(MAX_READS))
    samples, kinds, read, chars, is_complete = list[DeadLetter](), set[str](), 0, 0, True
    for letter in _letters(reader, run.locations) if limit else ():
        if len(samples) >= limit or (max_letters is not None and read >= max_letters) or chars >= MAX_READ_CHARS:
            is_complete = False
            break
        read += 1
        chars += len(letter.record or letter.record_base64 or "")
        kind = kind_of(letter.reason)
        if kind not in kinds if reason is None else reason in letter.reason:
            samples.append(letter)
            kinds.add(kind)
    return DeadLettersOfRun(
        pipeline=run.manifest.pipeline,
        run_key=run_key,
        count=run.dead_letters,
        reasons=run.reasons,
        locations=run.locations,
        samples=samples,
        read=read,
        is_complete=is_complete and bool(limit),
    )


def _letters(reader: CachedReader, locations: list[str]) -> Iterator[DeadLetter]:
    for location in locations:
        for part in list_parts(reader.objects, location):
            yield from read_letters(reader.objects, part)
