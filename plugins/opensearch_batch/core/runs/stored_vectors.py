"""Reads the vectors of an index's fields from stored answers, as columns of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ledger.answers import StoredAnswer, vector_text
from opensearch_batch.core.transform.json_path import RowReader
from opensearch_batch.core.types.record_ids import OUTPUT
from opensearch_batch.core.types.vector_field import VectorField

if TYPE_CHECKING:
    import pyarrow as pa

_numbers = msgspec.json.Decoder(list[float]).decode


class VectorColumn(msgspec.Struct, frozen=True):
    """A vector field: the path of its value in output rows, and the type of the numbers of its column.

    The type is ``float``, ``double`` or ``int8``.
    """

    name: str
    path: str
    type: str


def vector_columns(
    paths: Mapping[str, str], vectors: Sequence[VectorField], *, keeps_digits: bool
) -> list[VectorColumn]:
    """Return a column for each vector field that reads output rows, in the order of the index.

    `paths` are those of the fields in output rows. If the store `keeps_digits`, columns of floats are ``double``.
    """
    floats = "double" if keeps_digits else "float"
    return [
        VectorColumn(field.name, paths[field.name], floats if field.data_type == "float" else "int8")
        for field in vectors
        if field.name in paths
    ]


class VectorReader:
    """Reads the values of one column from answers."""

    def __init__(self, column: VectorColumn) -> None:
        import numpy as np
        import pyarrow as pa

        number = pa.type_for_alias(column.type)
        self.field = pa.field(column.name, pa.list_(pa.field("element", number)))
        self._path = column.path
        self._type = np.dtype(number.to_pandas_dtype())
        # Rows without ids may be arrays, which are read as a member.
        self._read = RowReader([(column.name, f"$.{OUTPUT}{column.path.strip().removeprefix('$')}")]).values

    def array(self, answers: Iterable[StoredAnswer | None]) -> pa.Array:
        """Return the vectors of answers; null for an answer without a vector, and where there is no answer."""
        import numpy as np
        import pyarrow as pa

        vectors = [None if answer is None else self._vector(answer) for answer in answers]
        ends = np.cumsum([0, *(0 if vector is None else len(vector) // self._type.itemsize for vector in vectors)])
        numbers = pa.array(np.frombuffer(b"".join(filter(None, vectors)), self._type))
        offsets = pa.array(ends, pa.int32(), mask=np.array([*(vector is None for vector in vectors), False]))
        return pa.ListArray.from_arrays(offsets, numbers, type=self.field.type)

    def _vector(self, answer: StoredAnswer) -> bytes | None:
        """Return the bytes of a vector; None if there is none."""
        import numpy as np

        if self._path in answer.paths and (vector := answer.vectors[answer.paths.index(self._path)]):
            if self._type.itemsize == np.dtype("<f4").itemsize:
                return vector
            text: object = vector_text(vector)
        else:
            try:
                text = self._read(b'{"%b":%b}' % (OUTPUT.encode(), answer.text("")))[0]
            except RecordRejected:
                return None
        try:
            return None if text is None else np.array(_numbers(text), self._type).tobytes()  # type: ignore[arg-type] # JSON text
        except msgspec.DecodeError:
            return None
