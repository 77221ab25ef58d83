"""Reads the keys, choices, descriptions and examples of options from the type annotations of structs."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from opensearch_batch.core.config.option_types import Plugin
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.errors import did_you_mean

# mypy has no type for a type annotation.
Annotation = Any
_LENGTH_WITHOUT_SECONDS = len("2026-01-31T00:00")


def struct_at(annotation: Annotation, keys: Sequence[str | int] = ()) -> type[msgspec.Struct] | None:
    """Return the struct type at a path of keys below an annotation, or None for any other type."""
    origin, inner = origin_of(annotation), get_args(annotation)
    if origin is Annotated:
        return struct_at(inner[0], keys)
    if origin in (Union, types.UnionType):
        return next((struct for each in inner if (struct := struct_at(each, keys)) is not None), None)
    if origin in (list, dict):
        return struct_at(inner[-1], keys[1:]) if keys else None
    struct = _struct(annotation)
    if struct is None or not keys:
        return struct
    field = next((field for field in msgspec.structs.fields(struct) if field.name == keys[0]), None)
    return None if field is None else struct_at(field.type, keys[1:])


def field_at(root: type[msgspec.Struct], keys: Sequence[str | int]) -> FieldInfo | None:
    """Return the field named by the last string in a path of keys, or None where any key is allowed."""
    last = next((position for position in range(len(keys) - 1, -1, -1) if isinstance(keys[position], str)), None)
    struct = None if last is None else struct_at(root, keys[:last])
    if last is None or struct is None:
        return None
    return next((field for field in msgspec.structs.fields(struct) if field.name == keys[last]), None)


def bare_type(annotation: Annotation) -> tuple[Annotation, list[object]]:
    """Return a type without None and metadata, and the metadata as a list."""
    metas: list[object] = []
    while True:
        origin = origin_of(annotation)
        if origin is Annotated:
            annotation, *outer = get_args(annotation)
            metas += outer
        elif origin in (Union, types.UnionType):
            others = [each for each in get_args(annotation) if each is not type(None)]
            if len(others) != 1:
                return annotation, metas
            annotation = others[0]
        else:
            return annotation, metas


def plugin_of(annotation: Annotation) -> Plugin | None:
    """Return the `Plugin` metadata of an option that names a plugin, or None for any other option."""
    return next((meta for meta in bare_type(annotation)[1] if isinstance(meta, Plugin)), None)


def origin_of(annotation: Annotation) -> object:
    """Return the generic type of an annotation: `list` for `list[str]`."""
    origin: object = get_origin(annotation)
    return origin


def choices(annotation: Annotation) -> list[str]:
    """Return the values of all `Literal` types in a type."""
    if origin_of(annotation) is Literal:
        return list(get_args(annotation))
    return list(dict.fromkeys(word for each in get_args(annotation) for word in choices(each)))


def description_of(annotation: Annotation) -> str:
    """Return the description of an option, or an empty string if it has none."""
    return next((meta.description for meta in _metas(annotation) if meta.description), "")


def example_of(annotation: Annotation) -> object:
    """Return the first example of an option, or None if it has none."""
    return next((example for meta in _metas(annotation) for example in meta.examples or ()), None)


def example_line(field: FieldInfo) -> str:
    """Return a YAML line for an option, made from its example or required keys; empty if it has neither."""
    example, struct = example_of(field.type), struct_at(field.type)
    if example is not None:
        return f"{field.encode_name}: {json.dumps(example, ensure_ascii=False)}"
    needed = [inner.name for inner in msgspec.structs.fields(struct) if inner.required] if struct else []
    return f"{field.encode_name}: with {', '.join(needed)} below it" if needed else ""


def missing_key(field: FieldInfo) -> str:
    """Return the message for a required key that is missing."""
    line = example_line(field)
    return f"{field.encode_name} is missing{f'; write {line}' if line else ''}"


def unknown_key(name: str, known: Sequence[str]) -> str:
    """Return the message for a key that does not exist."""
    hint = did_you_mean(name, known) or (f" The keys are {', '.join(known)}." if known else " No key is allowed here.")
    return f"unknown key.{hint}"


def not_one_of(value: str, known: Sequence[str]) -> str:
    """Return the message for a value that is not among the choices."""
    return f"{value!r} is not one of {', '.join(known)}.{did_you_mean(value, known)}"


def normalized(text: str, annotation: Annotation) -> str:
    """Return a string in the form that msgspec requires.

    Data Prepper also accepts choices in any case, and times without seconds.
    """
    plain, _ = bare_type(annotation)
    words = choices(plain)
    if words and text not in words and text.lower() in words:
        return text.lower()
    if plain is datetime:
        text = text.removesuffix("Z")
        return f"{text}:00" if len(text) == _LENGTH_WITHOUT_SECONDS else text
    return text


def has_options(annotation: Annotation) -> bool:
    """Return whether a type is a struct or names a plugin."""
    plain, metas = bare_type(annotation)
    return any(isinstance(meta, Plugin) for meta in metas) or _struct(plain) is not None


def names_below(annotation: Annotation) -> tuple[set[str], str]:
    """Return the option names allowed below an option, and a hint if they belong in a list item."""
    plain, _ = bare_type(annotation)
    plugin = plugin_of(annotation)
    if plugin is not None:
        return {*plugin.known, *plugin.refused}, ""
    if isinstance(plain, type) and issubclass(plain, Options):
        names = {field.encode_name for field in msgspec.structs.fields(plain)}
        return {*names, *plain.ALIASES, *plain.NO_EFFECT, *plain.REFUSED}, ""
    if origin_of(plain) in (list, tuple):
        return names_below(get_args(plain)[0])[0], ", in a list item (- )"
    return set(), ""


def is_list_of_strings(annotation: Annotation) -> bool:
    """Return whether a type is a list of plain strings, which error messages may quote, unlike secrets."""
    plain, _ = bare_type(annotation)
    return origin_of(plain) in (list, tuple) and bare_type(get_args(plain)[0])[0] is str


def accepts_any(annotation: Annotation) -> bool:
    """Return whether a type, or a part of it, accepts any JSON value."""
    return annotation is Any or any(accepts_any(each) for each in get_args(annotation))


def accepts_null(annotation: Annotation) -> bool:
    """Return whether a type accepts null."""
    origin = origin_of(annotation)
    if origin is Annotated:
        return accepts_null(get_args(annotation)[0])
    return annotation is Any or (origin in (Union, types.UnionType) and type(None) in get_args(annotation))


def sized_list(metas: Sequence[object]) -> Annotation:
    """Return the type of a list of strings with the length limits in the metadata of an option."""
    annotation: Annotation = list[str]
    for meta in metas:
        if isinstance(meta, Meta):
            annotation = Annotated[annotation, meta]
    return annotation


def _metas(annotation: Annotation) -> Iterator[Meta]:
    yield from (meta for meta in bare_type(annotation)[1] if isinstance(meta, Meta))


def _struct(annotation: Annotation) -> type[msgspec.Struct] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) else None
