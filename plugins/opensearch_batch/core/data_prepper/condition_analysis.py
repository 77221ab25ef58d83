"""Finds keys that no codec, service or processor produces, and conditions that never hold without these keys.

A key is known if a processor reads or adds it, or if the codec or the AI service adds it. A condition is evaluated with
null for unknown keys, as Data Prepper's expressions do (2.17), and with any value for known keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import takewhile

import msgspec

from opensearch_batch.core.data_prepper.file.ml_inference import PREDICTION_MEMBERS
from opensearch_batch.core.data_prepper.file.pipelines import DataPrepperPipeline
from opensearch_batch.core.data_prepper.file.s3_enrich import S3Enrich
from opensearch_batch.core.data_prepper.file.source import S3Source
from opensearch_batch.core.formats.csv import Csv
from opensearch_batch.core.formats.json import Json
from opensearch_batch.core.formats.newline import Newline
from opensearch_batch.core.transform.events.event import MISSING, Event, EventError, Key, key_of, key_or_none
from opensearch_batch.core.transform.expressions import grammar
from opensearch_batch.core.transform.expressions.operators import OPERATORS
from opensearch_batch.core.transform.processors.add_entries import AddEntries
from opensearch_batch.core.transform.processors.base import ProcessorOptions, keys_named
from opensearch_batch.core.transform.processors.parse_json import ParseJson
from opensearch_batch.core.transform.processors.rename_keys import RenameKeys

# Possible results of a condition; None is an error or null.
Outcomes = set[bool | None]
_ANY: Outcomes = {True, False}
_LOGICAL_OPERATORS = ("and", "or")


class KnownKeys:
    """The known keys of rows, before and after the processors of a pipeline; `extra_keys` are known too."""

    def __init__(self, pipeline: DataPrepperPipeline, *extra_keys: Key) -> None:
        self._processors = [
            options for _, _, options in pipeline.processors if isinstance(options, (ProcessorOptions, S3Enrich))
        ]
        self._final, self._at_any_time = Event({}), Event({})
        self._put({*extra_keys, *_static_keys(pipeline.source), *self._read_keys()})
        for options in self._processors:
            if isinstance(options, ProcessorOptions):
                with suppress(EventError):
                    options.compile()(self._final)
                # Includes keys that the processor adds only under a condition.
                self._put(options.adds())

    @property
    def has_dynamic_keys(self) -> bool:
        """Whether a processor adds keys whose names depend on the row."""
        return any(
            (isinstance(options, ParseJson) and options.destination is None)
            or (isinstance(options, RenameKeys) and options.entries is None)
            or (isinstance(options, AddEntries) and any("${" in (entry.key or "") for entry in options.entries))
            for options in self._processors
        )

    @property
    def reads_predictions(self) -> bool:
        """Whether a processor reads predictions."""
        return any(key[0] in PREDICTION_MEMBERS for key in self._read_keys())

    def has(self, key: Key) -> bool:
        """Return whether a key may exist after the processors."""
        return _may_have(self._final, key)

    def existed(self, key: Key) -> bool:
        """Return whether a key may exist before a processor removes it."""
        return _may_have(self._at_any_time, key)

    def _read_keys(self) -> Iterator[Key]:
        """Yield the keys that a processor reads and no earlier processor adds."""
        added = set[Key]()
        for options in self._processors:
            if isinstance(options, S3Enrich):
                yield from keys_named([*options.correlation_keys, *options.keys_to_merge])
            else:
                yield from options.reads() - added
                added |= options.adds()

    def _put(self, keys: Iterable[Key]) -> None:
        for event in (self._final, self._at_any_time):
            for key in sorted(keys, key=len, reverse=True):
                # The key of an element implies its array.
                names = tuple(takewhile(lambda name: not name.isdecimal(), key))
                if names and not event.has(names):
                    with suppress(EventError):
                        event.put(names, "known")


def _static_keys(source: S3Source) -> Iterator[Key]:
    """Yield the keys that are known whatever the objects contain: predictions, metadata, and keys of the codec."""
    yield from ((name,) for name in PREDICTION_MEMBERS)
    if any(bucket.selection == "data_and_metadata" for bucket in source.buckets):
        root = key_of(source.metadata_root_key)
        yield from () if source.disable_s3_metadata_in_event else ((*root, "bucket"), (*root, "key"))
    match source.codec:
        case Newline():
            yield from keys_named(["message", source.codec.header_destination])
        case Csv():
            yield from ((name,) for name in source.codec.header or ())
        case Json():
            yield from ((name,) for name in source.codec.include_keys)


def _may_have(event: Event, key: Key) -> bool:
    """Return whether a key exists, or may exist inside a value whose members are unknown."""
    for end in range(1, len(key) + 1):
        node = event.find(key[:end])
        if not isinstance(node, dict):
            return node is not MISSING
    return True


def missing_keys(text: str, has: Callable[[Key], bool]) -> list[Key]:
    """Return the keys that prevent a condition from ever holding; `has` returns whether a row may have a key."""
    tree = grammar.parse(text)
    absent = {key for key in _keys(tree) if not has(key)}
    if True in _outcomes(tree, absent):
        return []
    sufficient = [key for key in sorted(absent) if True not in _outcomes(tree, {key})]
    return sufficient or sorted(absent)


def _outcomes(node: grammar.Node, absent: set[Key]) -> Outcomes:
    """Return the possible results of a condition for rows without the absent keys."""
    if isinstance(node, grammar.Parenthesized):
        return _outcomes(node.operand, absent)
    if isinstance(node, grammar.Inverted):
        return {each is False for each in _outcomes(node.operand, absent)}
    if isinstance(node, grammar.Chain) and node.operations[0][0] in _LOGICAL_OPERATORS:
        outcomes = _outcomes(node.first, absent)
        for sign, operand in node.operations:
            others = _outcomes(operand, absent)
            results = (OPERATORS[sign](left, right) for left in outcomes for right in others)
            outcomes = {result is True for result in results}
        return outcomes
    keys = set(_keys(node))
    return _outcomes_without_keys(node) if keys and keys <= absent else _ANY


def _outcomes_without_keys(node: grammar.Node) -> Outcomes:
    """Return the possible results of a comparison if none of its keys exists."""
    if isinstance(node, grammar.Pointer):
        return {None}
    if isinstance(node, grammar.TypeOf):
        return {False}
    if not isinstance(node, grammar.Chain) or len(node.operations) > 1:
        # A function may fail.
        return {False, None} if isinstance(node, grammar.Call) else _ANY
    sign, second = node.operations[0]
    if sign in ("==", "!="):
        all_null = all(
            isinstance(operand, grammar.Pointer) or operand == grammar.Literal(None) for operand in (node.first, second)
        )
        return {all_null == (sign == "==")}
    return {sign == "not in"}


def _keys(part: object) -> Iterator[Key]:
    """Yield the keys in a part of a condition; a quoted argument of a function is a string."""
    if isinstance(part, grammar.Pointer):
        key = key_or_none(part.text)
        if key is not None:
            yield key
    elif isinstance(part, grammar.Call):
        yield from _keys(tuple(argument for argument in part.arguments if not getattr(argument, "quoted", False)))
    elif isinstance(part, tuple):
        for element in part:
            yield from _keys(element)
    elif isinstance(part, msgspec.Struct):
        yield from _keys(msgspec.structs.astuple(part))
