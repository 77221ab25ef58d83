"""Reads the mapped values of composed rows from records and answers, without composing the rows.

Vectors are most of a row's bytes. The text of a vector is formatted once, from the stored floats, and copied to the
document. With a composed row, the vector would also have to be found in the row, and its values counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from opensearch_batch.core.errors import RecordRejected
from opensearch_batch.core.ledger.answers import StoredAnswer, vector_writer
from opensearch_batch.core.transform.field_map import WHOLE_RECORD, FieldMap
from opensearch_batch.core.transform.json_path import CheckedValues, RowReader, Text, Values
from opensearch_batch.core.transform.map_paths import first_name, overlap
from opensearch_batch.core.types.record_ids import OUTPUT, RECORD
from opensearch_batch.core.types.rows import Row

_FLOAT_BYTES = 4
# The bytes of 0.0 and -0.0.
_ZEROS = (b"\0\0\0\0", b"\0\0\0\x80")
# No vector has this size, so `FieldMap` checks every vector for a field that does not store 32-bit floats.
_NO_SIZE = -1
# In place of the position of a vector: the value is in `StoredAnswer.rest`.
_IN_REST = -1


class _Output(NamedTuple):
    """Where a value is in an answer: the position of its vector in `StoredAnswer.vectors`, or `_IN_REST`.

    If a vector field gets the value, `size_bytes` is the size of a vector that fits the field, and `cosine` whether the
    field refuses zero vectors.
    """

    position: int
    size_bytes: int = 0
    cosine: bool = False


class ComposedValues:
    """Reads the values of a field map over composed rows.

    `output_members` are the names of the members that the service adds to a record, if its output rows contain their
    records; None if a composed row is ``{"record": …, "output": …}``.
    """

    def __init__(
        self, field_map: FieldMap, compose: Callable[[Row], bytes], output_members: frozenset[str] | None
    ) -> None:
        self._field_map = field_map
        self._compose = compose
        records, outputs, order = list[tuple[str, str]](), list[tuple[str, str]](), list[tuple[bool, int]]()
        named_paths = field_map.named_paths[0]
        has_whole = any(name == WHOLE_RECORD for name, _ in named_paths)
        for name, path in named_paths:
            if name == WHOLE_RECORD:
                continue
            is_output = first_name(path) in (output_members or {OUTPUT})
            part = path if output_members is not None or is_output else _inside(RECORD, path)
            order.append((is_output, len(outputs if is_output else records)))
            (outputs if is_output else records).append((name, part))
        # A path that does not start with a name may match members of the record and of the service's output.
        self._is_separable = bool(records) and all(
            path != "$" and (output_members is None or first_name(path) not in {None, "*"}) for _, path in records
        )
        self._order = [len(records) * is_output + at for is_output, at in order]
        # `WHOLE_RECORD` is the last path, and `read` appends its value, the record, after all others.
        self._order += [len(records) + len(outputs)] * has_whole
        self._read_record, self._read_rest = RowReader(records).values, RowReader(outputs).values
        self._rest_format = b"%b" if output_members is not None else b'{"%b":%%b}' % OUTPUT.encode()
        self._paths = [path if output_members is not None else _inside(OUTPUT, path) for _, path in outputs]
        self._fields = [field_map.vectors.get(name) for name, _ in outputs]
        self._has_all_vectors = {name for name, _ in outputs} >= set(field_map.vectors)
        self._vector_text = vector_writer()
        # By the paths of the values that were cut out of an answer.
        self._plans: dict[tuple[str, ...], list[_Output] | None] = {}

    def read(self, row: Row) -> Values:
        """Return the values of a row whose content is the record; raise RecordRejected if that is not a JSON object."""
        answer = row.answer
        if type(answer) is StoredAnswer and self._is_separable:
            try:
                plan = self._plans[answer.paths]
            except KeyError:
                plan = self._plans[answer.paths] = self._plan(answer)
            if plan is not None:
                try:
                    values = self._read_record(row.content)
                    is_checked = self._add_outputs(values, answer, plan)
                except RecordRejected:
                    # Reading the composed row raises the error whose text is the reason in the dead letter.
                    return self._field_map.read(0, self._compose(row))
                values.append(row.content)
                in_order = [values[at] for at in self._order]
                return CheckedValues(in_order) if is_checked else in_order
        return self._field_map.read(0, self._compose(row))

    def _add_outputs(self, values: Values, answer: StoredAnswer, plan: list[_Output]) -> bool:
        """Append the values of an answer; return whether the values of all vector fields are known to fit."""
        rest, is_checked = list[Text | None](), self._has_all_vectors
        for at, (position, size_bytes, cosine) in enumerate(plan):
            if position == _IN_REST:
                rest = rest or self._read_rest(self._rest_format % answer.rest)
                values.append(rest[at])
                is_checked = is_checked and not size_bytes
                continue
            vector = answer.vectors[position]
            values.append(self._vector_text(vector))
            # A vector that starts with a zero may be a zero vector.
            if size_bytes and (len(vector) != size_bytes or (cosine and vector[:_FLOAT_BYTES] in _ZEROS)):
                is_checked = False
        return is_checked

    def _plan(self, answer: StoredAnswer) -> list[_Output] | None:
        """Return where the values of the paths are in an answer.

        None if a path leads to a record id, to a part of a vector, or to a value that contains one of them.
        """
        plan, cut = list[_Output](), answer.paths
        for path, field in zip(self._paths, self._fields, strict=True):
            is_vector = path in cut and answer.vectors[cut.index(path)] != b""
            if not is_vector and any(overlap(path, other) for other in cut):
                return None
            position = cut.index(path) if is_vector else _IN_REST
            if field is None:
                plan.append(_Output(position))
            else:
                size_bytes = _FLOAT_BYTES * field.dimension if field.data_type == "float" else _NO_SIZE
                plan.append(_Output(position, size_bytes, field.cosine))
        return plan


def _inside(member: str, path: str) -> str:
    """Return a path below a member of the composed row as a path in the member's value."""
    return "$" + path.removeprefix(f"$.{member}")
