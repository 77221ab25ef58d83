"""Reads the mapped values of composed rows from records and answers, without composing the rows.

A vector is most of a row. Its text is made of the stored floats once, and goes to the document as it is: it is not
searched in a row, and its length is known. In the answer's text without vectors, a marker stands for each of them. A
row with a value that is missing, or of which a marker is only a part, is composed and read as a whole.
"""

from __future__ import annotations

from collections.abc import Callable

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ingest.prediction_map import first_name
from opensearch_batch.core.ledger.answers import StoredAnswer, vector_text
from opensearch_batch.core.transform.field_map import FieldMap
from opensearch_batch.core.transform.json_path import RowReader, Text, Values
from opensearch_batch.core.transform.vectors import CheckedVector
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD
from opensearch_batch.core.types.rows import Row
from opensearch_batch.core.types.vector_field import VectorField

# The beginning of a number that nobody writes.
MARKER = b"-0.0e99"
_VECTOR_START = b"[" + MARKER
_FLOAT_BYTES = 4


class ComposedValues:
    """Reads the values of a field map.

    Args:
        field_map: the field map over composed rows.
        compose: composes a row.
        output_members: the members of an output row, if it contains its record; None if records and output rows are
            members of the composed row.
    """

    def __init__(
        self, field_map: FieldMap, compose: Callable[[Row], bytes], output_members: frozenset[str] | None
    ) -> None:
        self._field_map = field_map
        self._compose = compose
        self._start, self._end = (b"", b"") if output_members is not None else (b'{"%b":' % OUTPUT.encode(), b"}")
        records, outputs, order = list[tuple[str, str]](), list[tuple[str, str]](), list[tuple[bool, int]]()
        for name, path in field_map.named_paths[0]:
            is_output = first_name(path) in (output_members or {OUTPUT})
            inside = path if is_output or output_members is not None else f"${path.removeprefix(f'$.{RECORD}')}"
            order.append((is_output, len(outputs if is_output else records)))
            (outputs if is_output else records).append((name, inside))
        self._read_record, self._read_output = RowReader(records).values, RowReader(outputs).values
        self._order = [len(records) * is_output + at for is_output, at in order]
        self._vectors = [field_map.vectors.get(name) for name, _ in outputs]
        # A wildcard in front of a member finds members of the record and of the output row.
        self._is_separable = bool(outputs) and all(
            path != "$" and (output_members is None or first_name(path) not in {None, "*"}) for _, path in records
        )

    def read(self, row: Row) -> Values:
        """Return the values of a row whose content is the record.

        Raises:
            RecordRejected: the record is not a JSON object.
        """
        answer = row.answer
        if type(answer) is StoredAnswer and self._is_separable and MARKER not in answer.rest:
            try:
                if values := self._separate(row.content, answer):
                    return values
            except RecordRejected:
                # The composed row is rejected for the reason that a user sees in the dead letter.
                pass
        return self._field_map.read(0, self._compose(row))

    def _separate(self, record: bytes, answer: StoredAnswer) -> Values | None:
        """Return the values, None if the row has to be composed."""
        text = answer.marked_text(MARKER)
        values = self._read_record(record)
        outputs = self._read_output(b"%b%b%b" % (self._start, text, self._end))
        for value, field in zip(outputs, self._vectors, strict=True):
            whole = None if value is None else _whole(value, answer, field)
            if whole is None:
                return None
            values.append(whole)
        return [values[at] for at in self._order]


def _whole(value: Text, answer: StoredAnswer, field: VectorField | None) -> Text | None:
    """Return a value with its vector; None if it has parts that were cut out."""
    text = bytes(value)
    if MARKER not in text:
        return value
    number = text[len(_VECTOR_START) : -1]
    vector = answer.vectors[int(number)] if text.startswith(_VECTOR_START) and number.isdigit() else b""
    if not vector:
        return None
    is_checked = field is not None and _fits(field, vector)
    return CheckedVector(vector_text(vector)) if is_checked else vector_text(vector)


def _fits(field: VectorField, vector: bytes) -> bool:
    """Return whether a vector surely fits its field; one with many zero bytes may be a zero vector."""
    is_float = field.data_type == "float" and len(vector) == _FLOAT_BYTES * field.dimension
    return is_float and not (field.cosine and 2 * vector.count(0) > len(vector))
