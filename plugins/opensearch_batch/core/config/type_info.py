"""Reads the type annotations of a config struct: the keys, choices, meaning and example of each field."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec


def fields_at(root: type[msgspec.Struct], keys: Sequence[str | int]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return what a part of the file may say, ``()`` where anything may stand."""
    struct = struct_at(root, keys)
    return () if struct is None else msgspec.structs.fields(struct)


def struct_at(kind: Any, keys: Sequence[str | int]) -> type[msgspec.Struct] | None:  # noqa: ANN401 - a type's annotation
    """Follow keys through the types, to the one that has keys itself."""
    if get_origin(kind) is Annotated:
        return struct_at(get_args(kind)[0], keys)
    if get_origin(kind) in (Union, types.UnionType):
        return next((found for each in get_args(kind) if (found := struct_at(each, keys)) is not None), None)
    if get_origin(kind) in (list, dict):
        return struct_at(get_args(kind)[-1], keys[1:]) if keys else None
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    if not keys:
        return kind
    field = next((field for field in msgspec.structs.fields(kind) if field.name == keys[0]), None)
    return None if field is None else struct_at(field.type, keys[1:])


def field_at(root: type[msgspec.Struct], keys: Sequence[str | int]) -> msgspec.structs.FieldInfo | None:
    """Return the field that the last name of a path is, None where anything may stand."""
    at = next((at for at in range(len(keys) - 1, -1, -1) if isinstance(keys[at], str)), None)
    if at is None:
        return None
    return next((field for field in fields_at(root, keys[:at]) if field.name == keys[at]), None)


def type_at(root: type[msgspec.Struct], keys: Sequence[str | int]) -> Any:  # noqa: ANN401 - a type's annotation
    """Return the type of the nearest key that has one: a member of an object has its object's."""
    while keys:
        if (field := field_at(root, keys)) is not None:
            return field.type
        keys = keys[:-1]
    return None


def choices(kind: Any) -> Iterator[str]:  # noqa: ANN401 - a type's annotation
    """Yield the words of which one may stand somewhere."""
    if get_origin(kind) is Literal:
        yield from dict.fromkeys(get_args(kind))
    else:
        yield from dict.fromkeys(word for each in get_args(kind) for word in choices(each))


def meaning_of(kind: Any) -> str:  # noqa: ANN401 - a type's annotation
    """Return what a key is said to mean, empty where nothing is said."""
    return next((meta.description for meta in _metas(kind) if meta.description), "")


def example_of(kind: Any) -> Any:  # noqa: ANN401 - a type's annotation, and any YAML
    """Return the example of how a key is written, None for none."""
    return next((example for meta in _metas(kind) for example in meta.examples or ()), None)


def _metas(kind: Any) -> Iterator[msgspec.Meta]:  # noqa: ANN401 - a type's annotation
    if get_origin(kind) is Annotated:
        yield from (meta for meta in get_args(kind)[1:] if isinstance(meta, msgspec.Meta))
