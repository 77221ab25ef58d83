"""A pipeline file is taken whole, or refused with file, line, cause and remedy: ``books.yaml:14 ingest.index: …``.

`pipeline_rules` says what has to hold beyond the types.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.pipeline_rules import Keys, rules
from opensearch_batch.core.spec import PipelineSpec

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]+)`")
_NOT_ONE_OF = re.compile(r"Invalid enum value '(?P<value>[^']*)'")
_AT = re.compile(r" - at `(?P<path>[^`]+)`$")
_KEY = re.compile(r"\.([^.\[]+)|\[(\d+)\]")


class PipelineFile:
    """A file that says what a pipeline can be.

    Args:
        path: a YAML file of ``include/pipelines/``.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something a pipeline cannot.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        value = self._read()
        self.spec = self._convert(value)
        for keys, check in rules(self.spec):
            try:
                check()
            except ConfigError as error:
                raise self.error(keys, str(error)) from error

    @property
    def name(self) -> str:
        """The pipeline's name, which is its DAG's id."""
        return self.path.stem

    def body(self, *keys: str) -> dict[str, Any] | None:
        """Return the JSON file that the value at `keys` names, from the folder of its kind; None where none is named.

        Raises:
            ConfigError: there is no such file, or it is no JSON.
        """
        kind = keys[-1]
        folder = self.path.parent.parent / {"connector": "connectors", "index_body": "indexes"}[kind]
        value: Any = self.spec
        for key in keys:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        if value is None:
            return None
        path = folder / f"{value}.json"
        if not path.is_file():
            known = [found.stem for found in folder.glob("*.json")]
            raise self.error(keys, f"no file {path}; known: {', '.join(known)}.{did_you_mean(value, known)}")
        try:
            body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise self.error(keys, f"{path}:{error.lineno} is no JSON: {error.msg}") from error
        return body

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error with the place of a key."""
        return ConfigError(f"{self.path}:{_line(self._tree, keys)} {_dotted(keys) or 'pipeline'}: {cause}")

    def _read(self) -> Any:  # noqa: ANN401 - YAML
        import yaml

        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.path}:1 cannot be read: {error}") from error
        # libyaml reads five times as fast, and not every installation of PyYAML has it.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        try:
            self._tree = loader.get_single_node()
            if self._tree is None:
                return {}
            self._refuse_twice()
            return loader.construct_document(self._tree)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{self.path}:{line} no YAML: {error.problem}") from error
        finally:
            loader.dispose()

    def _refuse_twice(self) -> None:
        """Raise ConfigError where a key stands twice: YAML would silently keep the last."""
        for keys, node in _mappings(self._tree):
            seen: dict[str, int] = {}
            for name, _ in node.value:
                line = name.start_mark.line + 1
                if name.value in seen:
                    place = _dotted((*keys, name.value))
                    raise ConfigError(f"{self.path}:{line} {place}: the key stands in line {seen[name.value]} already")
                seen[name.value] = line

    def _convert(self, value: Any) -> PipelineSpec:  # noqa: ANN401 - YAML
        try:
            return msgspec.convert(value, PipelineSpec)
        except msgspec.ValidationError as error:
            raise self._placed(str(error)) from error

    def _placed(self, message: str) -> ConfigError:
        """Turn msgspec's message, which ends with a path, into one with a line and what to write."""
        at = _AT.search(message)
        # A member of an object is told without its name.
        path = at["path"].replace("[...]", "") if at else ""
        keys: Keys = tuple(name or int(number) for name, number in _KEY.findall(path))
        cause = _AT.sub("", message)
        if unknown := _UNKNOWN.search(cause):
            known = [field.name for field in _fields(keys)]
            hint = did_you_mean(unknown["key"], known) or f" The keys are {', '.join(known)}."
            return self.error((*keys, unknown["key"]), f"unknown key.{hint}")
        if missing := _MISSING.search(cause):
            return self.error(keys, f"{missing['key']} is missing; write {_look((*keys, missing['key']))}")
        if wrong := _NOT_ONE_OF.search(cause):
            known = list(_choices(_type_at(keys)))
            hint = did_you_mean(wrong["value"], known)
            return self.error(keys, f"{wrong['value']!r} is none of {', '.join(known)}.{hint}")
        look = _look(keys)
        return self.error(keys, cause + (f"; write {look}" if look else ""))


def load(path: Path) -> PipelineSpec:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something a pipeline cannot.
    """
    return PipelineFile(path).spec


def _fields(keys: Sequence[str | int]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """Return what a part of the file may say, ``()`` where anything may stand."""
    struct = _struct(PipelineSpec, keys)
    return () if struct is None else msgspec.structs.fields(struct)


def _struct(kind: Any, keys: Sequence[str | int]) -> type[msgspec.Struct] | None:  # noqa: ANN401 - a type's annotation
    """Follow keys through the types, to the one that has keys itself."""
    if get_origin(kind) is Annotated:
        return _struct(get_args(kind)[0], keys)
    if get_origin(kind) in (Union, types.UnionType):
        return next((found for each in get_args(kind) if (found := _struct(each, keys)) is not None), None)
    if get_origin(kind) in (list, dict):
        return _struct(get_args(kind)[-1], keys[1:]) if keys else None
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    if not keys:
        return kind
    field = next((field for field in msgspec.structs.fields(kind) if field.name == keys[0]), None)
    return None if field is None else _struct(field.type, keys[1:])


def _field_at(keys: Sequence[str | int]) -> msgspec.structs.FieldInfo | None:
    """Return the field that the last name of a path is, None where anything may stand."""
    at = next((at for at in range(len(keys) - 1, -1, -1) if isinstance(keys[at], str)), None)
    if at is None:
        return None
    return next((field for field in _fields(keys[:at]) if field.name == keys[at]), None)


def _type_at(keys: Sequence[str | int]) -> Any:  # noqa: ANN401 - a type's annotation
    """Return the type of the nearest key that has one: a member of an object has its object's."""
    while keys:
        if (field := _field_at(keys)) is not None:
            return field.type
        keys = keys[:-1]
    return None


def _choices(kind: Any) -> Iterator[str]:  # noqa: ANN401 - a type's annotation
    """Yield the words of which one may stand somewhere."""
    if get_origin(kind) is Literal:
        yield from dict.fromkeys(get_args(kind))
    else:
        yield from dict.fromkeys(word for each in get_args(kind) for word in _choices(each))


def _look(keys: Sequence[str | int]) -> str:
    """Return how a key is written, from its example."""
    field = _field_at(keys)
    if field is None:
        return ""
    struct = _struct(field.type, ())
    if struct is not None:
        needed = [inner.name for inner in msgspec.structs.fields(struct) if inner.required]
        return f"{field.name}: with {', '.join(needed)} below it" if needed else ""
    example = next(iter(_examples(field.type)), None)
    return "" if example is None else f"{field.name}: {json.dumps(example, ensure_ascii=False)}"


def _examples(kind: Any) -> Iterator[Any]:  # noqa: ANN401 - a type's annotation
    if get_origin(kind) is Annotated:
        for meta in get_args(kind)[1:]:
            yield from meta.examples or ()


def _dotted(keys: Sequence[str | int]) -> str:
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")


def _mappings(node: Any, keys: Keys = ()) -> Iterator[tuple[Keys, Any]]:  # noqa: ANN401 - a YAML node
    """Yield the mappings of a tree."""
    if node.id == "scalar":
        return
    if node.id == "mapping":
        yield keys, node
        for name, value in node.value:
            yield from _mappings(value, (*keys, str(name.value)))
    else:
        for at, value in enumerate(node.value):
            yield from _mappings(value, (*keys, at))


def _line(node: Any, keys: Sequence[str | int]) -> int:  # noqa: ANN401 - a YAML node
    """Return the line of the deepest of these keys that the file has, counting from 1."""
    line = 1
    for key in keys:
        kind = getattr(node, "id", None)
        if kind == "mapping":
            found = next(((name, value) for name, value in node.value if name.value == key), None)
        elif kind == "sequence" and isinstance(key, int) and key < len(node.value):
            found = (node.value[key], node.value[key])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
