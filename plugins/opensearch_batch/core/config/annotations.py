"""What a field's annotation says of the values it takes."""

from __future__ import annotations

import json
import types
from datetime import datetime
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from opensearch_batch.core.config.option_types import Plugin
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.config.type_info import choices, example_of

# A type as it is annotated: mypy has no type for these.
Kind = Any
_UP_TO_MINUTES = len("2026-01-31T00:00")


def as_said(text: str, kind: Kind) -> str:
    """Return a text as msgspec knows it: the original takes words in any case, and a time without seconds."""
    plain, _ = bare_type(kind)
    words = list(choices(plain))
    if words and text not in words and text.lower() in words:
        return text.lower()
    if plain is datetime:
        text = text.removesuffix("Z")
        return f"{text}:00" if len(text) == _UP_TO_MINUTES else text
    return text


def bare_type(kind: Kind) -> tuple[Kind, list[Any]]:
    """Return a type without null and annotations, and the annotations."""
    metas: list[Any] = []
    while True:
        origin: Any = get_origin(kind)
        if origin is Annotated:
            kind, *more = get_args(kind)
            metas += more
        elif origin in (Union, types.UnionType):
            others = [each for each in get_args(kind) if each is not type(None)]
            if len(others) != 1:
                return kind, metas
            kind = others[0]
        else:
            return kind, metas


def example_in(kind: Kind) -> Any:  # noqa: ANN401 - any YAML
    """Return the example of how an option is written, None for none."""
    plain, metas = bare_type(kind)
    told = (example_of(Annotated[plain, meta]) for meta in metas if isinstance(meta, msgspec.Meta))
    return next((example for example in told if example is not None), None)


def has_struct(kind: Kind) -> bool:
    """Say whether a type has options of its own, or names a plugin."""
    plain, metas = bare_type(kind)
    return any(isinstance(meta, Plugin) for meta in metas) or (
        isinstance(plain, type) and issubclass(plain, msgspec.Struct)
    )


def below(kind: Kind) -> tuple[set[str], str]:
    """Return the names that stand below an option, none for a value, and what stands before each.

    That is a hyphen where the option is a list.
    """
    plain, metas = bare_type(kind)
    plugin = next((meta for meta in metas if isinstance(meta, Plugin)), None)
    if plugin is not None:
        return {*plugin.known, *plugin.refused}, ""
    if isinstance(plain, type) and issubclass(plain, Options):
        names = {field.encode_name for field in msgspec.structs.fields(plain)}
        return {*names, *plain.ALIASES, *plain.NO_EFFECT, *plain.REFUSED}, ""
    origin: Any = get_origin(plain)
    if origin in (list, tuple):
        return below(get_args(plain)[0])[0], ", behind a hyphen"
    return set(), ""


def is_list_of_texts(kind: Kind) -> bool:
    """Say whether a value is a list of texts that may be shown."""
    plain, _ = bare_type(kind)
    origin: Any = get_origin(plain)
    return origin in (list, tuple) and bare_type(get_args(plain)[0])[0] is str


def is_any(kind: Kind) -> bool:
    """Say whether anything may stand somewhere in a value of a type."""
    return kind is Any or any(is_any(each) for each in get_args(kind))


def takes_null(kind: Kind) -> bool:
    """Say whether null is a value of a type."""
    origin: Any = get_origin(kind)
    if origin is Annotated:
        return takes_null(get_args(kind)[0])
    return kind is Any or (origin in (Union, types.UnionType) and type(None) in get_args(kind))


def counted(metas: list[Any]) -> Kind:
    """Return the type of a list that may have as many elements."""
    kind: Kind = list[str]
    for meta in metas:
        if isinstance(meta, msgspec.Meta):
            kind = Annotated[kind, meta]
    return kind


def look_of(field: msgspec.structs.FieldInfo) -> str:
    """Return how an option is written, from its example or from the options it must have."""
    example = example_in(field.type)
    if example is not None:
        return f"{field.name}: {json.dumps(example)}"
    plain, _ = bare_type(field.type)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        needed = [inner.name for inner in msgspec.structs.fields(plain) if inner.required]
        return f"{field.name}: with {', '.join(needed)} below it" if needed else f"{field.name}: {{}}"
    return f"{field.name}: ..."
