"""Generates the JSON Schema and the reference page of pipeline files from `spec`."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args

import msgspec

from opensearch_batch.core.config.annotations import Annotation, description_of, example_of, origin_of, struct_at
from opensearch_batch.core.pipeline.spec import PipelineSpec

HEAD = """\
# Pipeline files: every key

Generated from `plugins/opensearch_batch/core/pipeline/spec.py` by `make reference`. Editors that support JSON Schema
validate a file that starts with this line:

```yaml
# yaml-language-server: $schema=../../docs/reference/pipeline.schema.json
```

[pipelines.md](pipelines.md) explains how the keys work together.
"""
_TYPE_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", Any: "any"}


def schema(services: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of a pipeline file, with the names of the AI services."""
    generated = json.loads(_with_services(json.dumps(msgspec.json.schema(PipelineSpec)), services))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Pipeline", **generated}


def page(services: Sequence[str]) -> str:
    """Return the reference page, in Markdown, with the names of the AI services."""
    sections = [HEAD, *(_section(keys, struct) for keys, struct in _structs(PipelineSpec, ""))]
    return _with_services("\n".join(sections), services)


def _with_services(text: str, services: Sequence[str]) -> str:
    *others, last = (f"`{name}`" for name in services)
    return text.replace("{services}", f"{', '.join(others)} or {last}")


def _section(keys: str, struct: type[msgspec.Struct]) -> str:
    summary = " ".join((struct.__doc__ or "").split())
    rows = [_row(field) for field in msgspec.structs.fields(struct)]
    head = f"## {f'`{keys}`' if keys else 'A pipeline'}"
    return "\n".join([head, "", summary, "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _row(field: msgspec.structs.FieldInfo) -> str:
    meaning, example = description_of(field.type), example_of(field.type)
    if not meaning and (struct := _struct_of(field.type)):
        meaning = " ".join((struct.__doc__ or "").split())
    if example is not None:
        meaning += f" Example: `{json.dumps(example, ensure_ascii=False)}`"
    cells = [f"`{field.name}`", _type(field.type), _default(field), meaning]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _structs(struct: type[msgspec.Struct], keys: str) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    yield keys, struct
    for field in msgspec.structs.fields(struct):
        inner = _struct_of(field.type)
        if inner is not None:
            yield from _structs(inner, f"{keys}.{field.name}".lstrip("."))


def _struct_of(kind: Annotation) -> type[msgspec.Struct] | None:
    """Return the struct of a type, or of the elements of a list or object."""
    return struct_at(kind, ()) or struct_at(kind, (0,))


def _type(kind: Annotation) -> str:
    """Return a type as the reference page shows it."""
    origin, inner = origin_of(kind), get_args(kind)
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
    return _TYPE_NAMES.get(kind, "object")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "**required**"
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if isinstance(value, msgspec.Struct) or value in (None, "", [], {}):
        return ""
    return f"`{json.dumps(value)}`"
