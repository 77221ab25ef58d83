"""The JSON Schema of a pipeline file and the page that explains it, both made of `spec`."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from opensearch_batch.core.config.type_info import example_of, meaning_of, struct_at
from opensearch_batch.core.pipeline.spec import PipelineSpec

HEAD = """\
# Pipeline files: every key

Made of `plugins/opensearch_batch/core/spec.py` by `make reference`; a test holds them together. An editor that reads
JSON Schema checks a file while it is written, with this as its first line:

```yaml
# yaml-language-server: $schema=../../docs/reference/pipeline.schema.json
```

[pipelines.md](pipelines.md) explains how they work together. A key without a default has to be there.
"""
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null", Any: "anything"}


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file."""
    found = msgspec.json.schema(PipelineSpec)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Pipeline", **found}


def page() -> str:
    """Return the reference page, in Markdown."""
    sections = [HEAD]
    for place, struct in _structs(PipelineSpec, ""):
        sections.append(_section(place, struct))
    return "\n".join(sections)


def _section(place: str, struct: type[msgspec.Struct]) -> str:
    summary = " ".join((struct.__doc__ or "").split())
    rows = [_row(field) for field in msgspec.structs.fields(struct)]
    head = f"## {f'`{place}`' if place else 'A pipeline'}"
    return "\n".join([head, "", summary, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(field: msgspec.structs.FieldInfo) -> str:
    meaning, example = meaning_of(field.type), example_of(field.type)
    if not meaning and (struct := _struct_of(field.type)):
        meaning = " ".join((struct.__doc__ or "").split())
    if example is not None:
        meaning += f" Example: `{json.dumps(example, ensure_ascii=False)}`"
    cells = [f"`{field.name}`", _type(field.type), _default(field), meaning]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _structs(struct: type[msgspec.Struct], place: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    yield place, struct
    for field in msgspec.structs.fields(struct):
        inner = _struct_of(field.type)
        if inner is not None:
            yield from _structs(inner, f"{place}.{field.name}".lstrip("."))


def _struct_of(kind: Any) -> type[msgspec.Struct] | None:  # noqa: ANN401 - a type's annotation
    """Return the type with keys of its own that may stand here, alone or as a member of a list or an object."""
    return struct_at(kind, ()) or struct_at(kind, (0,))


def _type(kind: Any) -> str:  # noqa: ANN401 - as above
    """Return a type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inner[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type(each) for each in inner if each is not type(None))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is dict:
        return f"object of {_type(inner[1])}"
    return _WORDS.get(kind, "object")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**required**"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if isinstance(value, msgspec.Struct) or value in (None, "", [], {}):
        return ""
    return f"`{json.dumps(value)}`"
