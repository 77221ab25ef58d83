"""A pipeline file is taken whole, or refused with file, line, cause and remedy: ``books.yaml:14 ingest.index: …``.

`pipeline_rules` says what has to hold beyond the types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.pipeline_rules import Keys, rules
from opensearch_batch.core.spec import PipelineSpec
from opensearch_batch.core.spec_types import choices, example_of, field_at, fields_at, struct_at, type_at

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
            known = [field.name for field in fields_at(keys)]
            hint = did_you_mean(unknown["key"], known) or f" The keys are {', '.join(known)}."
            return self.error((*keys, unknown["key"]), f"unknown key.{hint}")
        if missing := _MISSING.search(cause):
            return self.error(keys, f"{missing['key']} is missing; write {_look((*keys, missing['key']))}")
        if wrong := _NOT_ONE_OF.search(cause):
            known = list(choices(type_at(keys)))
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


def _look(keys: Sequence[str | int]) -> str:
    """Return how a key is written, from its example."""
    field = field_at(keys)
    if field is None:
        return ""
    struct = struct_at(field.type, ())
    if struct is not None:
        needed = [inner.name for inner in msgspec.structs.fields(struct) if inner.required]
        return f"{field.name}: with {', '.join(needed)} below it" if needed else ""
    example = example_of(field.type)
    return "" if example is None else f"{field.name}: {json.dumps(example, ensure_ascii=False)}"


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
