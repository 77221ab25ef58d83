"""Which object a row goes back to: ids and joins go by it, for the place of an output names its job, too.

SageMaker and Bedrock write ``<input's name>.out``, below the job's folder and the folders that the input lies in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.types.rows import Row

OUT = ".out"
NONE: Mapping[str, str] = MappingProxyType({})


class Origins(msgspec.Struct, frozen=True):
    """By a row's object: the input that a job was asked, and the object whose records rows are joined with."""

    inputs: Mapping[str, str] = NONE
    records: Mapping[str, str] = NONE

    def origin_of(self, row: Row) -> tuple[str, int]:
        """Return the input that a row belongs to and its line: the same whichever job wrote the row."""
        return self.inputs.get(row.uri, row.uri), row.line


def input_of(output: str, inputs: Sequence[str]) -> str | None:
    """Return the input that an output answers, None where two may be it, or none is.

    It ends with the input's key; of keys that end with one another the longest counts.
    """
    if len(inputs) == 1:
        return inputs[0]
    asked = output.removesuffix(OUT)
    whole = [uri for uri in inputs if asked.endswith(f"/{split_uri(uri)[1]}")]
    if whole:
        return max(whole, key=len)
    named = [uri for uri in inputs if uri.rpartition("/")[2] == asked.rpartition("/")[2]]
    return named[0] if len(named) == 1 else None
