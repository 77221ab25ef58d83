"""Dead letters of a run by reason, with samples: the counts are stored, and only a bounded part of them is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import msgspec

from opensearch_batch.core.runs.run_details import MAX_READS
from opensearch_batch.core.runs.run_reading import read_run
from opensearch_batch.core.storage.cached_reads import CachedReader, ReadBudget
from opensearch_batch.core.storage.dead_letters import MAX_REASON_CHARS, DeadLetter, iter_parts, read_letters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.types.letter_reasons import LetterReason, kind_of

SHOWN_LETTERS, MAX_READ_LETTERS, MAX_READ_PARTS, MAX_READ_CHARS = 20, 1_000, 20, 16 << 20


class DeadLettersOfRun(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of a run.

    Attributes:
        count: the number that the run counted, of all stages; a later replay does not change it.
        reasons: the counted dead letters by reason, the most common first, each with its first dead letter.
        locations: the prefixes of the dead letters; `replay` takes one of them.
        samples: dead letters that exist now: those with the requested reason, or the first of each kind of reason.
        read: how many dead letters were read for the samples.
        is_complete: whether all existing dead letters were read.
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
    max_parts: int | None = MAX_READ_PARTS,
) -> DeadLettersOfRun:
    """Return the dead letters of a run, with at most `limit` samples.

    With `reason`, the samples are the letters whose reason contains this text or is of its kind, else the first letter
    of each kind. They are searched in the first `max_letters` letters of the first `max_parts` files.

    Raises:
        ConfigError: there is no such run.
    """
    run = read_run(reader, layout, run_key, ReadBudget(MAX_READS))
    samples, kinds, read, chars, is_complete = list[DeadLetter](), set[str](), 0, 0, bool(limit)
    parts = _parts(reader, layout.all_dead_letters(run_key), run.locations)
    for letter in _letters(reader, islice(parts, max_parts) if limit else ()):
        if len(samples) >= limit or read == max_letters or chars >= MAX_READ_CHARS:
            is_complete = False
            break
        read += 1
        chars += len(letter.record or letter.record_base64 or "")
        kind = kind_of(letter.reason[:MAX_REASON_CHARS])
        if kind not in kinds if reason is None else reason in letter.reason or kind == kind_of(reason):
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
        is_complete=is_complete and next(parts, None) is None,
    )


def _parts(reader: CachedReader, folder: str, locations: Sequence[str]) -> Iterator[str]:
    """Yield the files of dead letters at these locations; one listing finds those in the folder of the run."""
    within = {location for location in locations if location.startswith(folder)}
    if within:
        for uri in iter_parts(reader.objects, folder):
            if f"{uri.rpartition('/')[0]}/" in within:
                yield uri
    for location in locations:
        if location not in within:
            yield from iter_parts(reader.objects, location)


def _letters(reader: CachedReader, parts: Iterable[str]) -> Iterator[DeadLetter]:
    for part in parts:
        yield from read_letters(reader.objects, part)
