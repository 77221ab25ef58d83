"""Dead letters of a run by reason, with samples: the counts are stored, and only a bounded part of them is read."""

from __future__ import annotations

import msgspec

from opensearch_batch.core.storage.dead_letters import DeadLetter
from opensearch_batch.core.types.letter_reasons import LetterReason


class DeadLettersOfRun(msgspec.Struct, frozen=True, kw_only=True):
    """The dead letters of a run.

    Attributes:
        count: the number that the run counted, of all stages; a later replay does not change it.
        reasons: the counted ones by reason, the most common first, each with its first letter.
        locations: their prefixes; `replay` takes one of them.
        samples: letters as they are now, those of the asked reason, or the first of each reason.
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
