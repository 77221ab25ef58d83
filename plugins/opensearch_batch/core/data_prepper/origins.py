"""Maps each output object to its input object. Ids and joins use the input, because output paths contain the job.

SageMaker and Bedrock write ``<input name>.out``, below the folder of the job and the folders of the input.
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
    """By the object of a row: the input of its job, and the object with the records for the join."""

    inputs: Mapping[str, str] = NONE
    records: Mapping[str, str] = NONE

    def origin_of(self, row: Row) -> tuple[str, int]:
        """Return the input that a row belongs to and its line: the same whichever job wrote the row."""
        return self.inputs.get(row.uri, row.uri), row.line


def input_of(output: str, inputs: Sequence[str]) -> str | None:
    """Return the input of an output, None if there is none or if it is ambiguous.

    The output ends with the key of the input; the longest matching key wins.
    """
    if len(inputs) == 1:
        return inputs[0]
    name = output.removesuffix(OUT)
    whole = [uri for uri in inputs if name.endswith(f"/{split_uri(uri)[1]}")]
    if whole:
        return max(whole, key=len)
    named = [uri for uri in inputs if uri.rpartition("/")[2] == name.rpartition("/")[2]]
    return named[0] if len(named) == 1 else None
