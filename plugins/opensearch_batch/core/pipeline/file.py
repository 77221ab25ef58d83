"""Reads a pipeline file. Every error names file, line, cause and remedy: ``books.yaml:14 ingest.index: …``.

`rules` checks what the types cannot express.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from opensearch_batch.core.config.type_info import choices, example_of, field_at, fields_at, struct_at, type_at
from opensearch_batch.core.config.yaml_file import YamlFile, place_in
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.pipeline.dag_id import refusal_of
from opensearch_batch.core.pipeline.rules import rules
from opensearch_batch.core.pipeline.spec import PipelineSpec

SUFFIXES = (".yaml", ".yml")
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]+)`")
_MISSING = re.compile(r"Object missing required field `(?P<key>[^`]+)`")
_NOT_ONE_OF = re.compile(r"Invalid enum value '(?P<value>[^']*)'")


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) if folder.is_dir() else []


class PipelineFile:
    """A pipeline file, read and checked.

    Args:
        path: a YAML file of ``include/pipelines/``.
        adapter_of: returns the adapter of a service by name.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or breaks the schema or a rule; or its name is not a
            valid DAG id.
    """

    def __init__(self, path: Path, adapter_of: AdapterOf) -> None:
        self.path = path
        self._file = YamlFile(path)
        if (why := refusal_of(self.name)) is not None:
            raise self.error((), f"the file name is the DAG id, and it is not valid: {why}")
        self.spec = self._with_processors(self._convert(self._file.value()))
        for keys, check in rules(self.spec, adapter_of):
            try:
                check()
            except ConfigError as error:
                raise self.error(keys, str(error)) from error

    @property
    def name(self) -> str:
        """The name of the pipeline, which is its DAG id."""
        return self.path.stem

    def body(self, *keys: str) -> dict[str, Any] | None:
        """Return the content of the connector or index body named at `keys`, None if the value is not set.

        Raises:
            ConfigError: the file does not exist, or is not valid JSON.
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
            raise self.error(keys, f"{path}:{error.lineno} is not valid JSON: {error.msg}") from error
        return body

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error located at a key."""
        return self._file.error(keys, cause)

    def _convert(self, value: Any) -> PipelineSpec:  # noqa: ANN401 - YAML
        try:
            return msgspec.convert(value, PipelineSpec)
        except msgspec.ValidationError as error:
            raise self._placed(str(error)) from error

    def _with_processors(self, spec: PipelineSpec) -> PipelineSpec:
        """Return the spec with its processors read as in a Data Prepper file, whose scalars differ from YAML 1.1."""
        if spec.ingest.processors is None:
            return spec
        from opensearch_batch.core.ingest.row_documents import read_processors

        processors = read_processors(self._file, ("ingest", "processors"))
        return replace(spec, ingest=replace(spec.ingest, processors=processors))

    def _placed(self, message: str) -> ConfigError:
        """Return an error with line and remedy for a msgspec message, which ends with a path."""
        cause, keys = place_in(message)
        if unknown := _UNKNOWN.search(cause):
            known = [field.name for field in fields_at(PipelineSpec, keys)]
            hint = did_you_mean(unknown["key"], known) or f" The keys are {', '.join(known)}."
            return self.error((*keys, unknown["key"]), f"unknown key.{hint}")
        if missing := _MISSING.search(cause):
            return self.error(keys, f"{missing['key']} is missing; write {_example((*keys, missing['key']))}")
        if wrong := _NOT_ONE_OF.search(cause):
            known = list(choices(type_at(PipelineSpec, keys)))
            hint = did_you_mean(wrong["value"], known)
            return self.error(keys, f"{wrong['value']!r} is not one of {', '.join(known)}.{hint}")
        example = _example(keys)
        return self.error(keys, cause + (f"; write {example}" if example else ""))


def load(path: Path, adapter_of: AdapterOf) -> PipelineSpec:
    """Read a pipeline file.

    Raises:
        ConfigError: as `PipelineFile`.
    """
    return PipelineFile(path, adapter_of).spec


def _example(keys: Sequence[str | int]) -> str:
    """Return an example of how to write a key."""
    field = field_at(PipelineSpec, keys)
    if field is None:
        return ""
    struct = struct_at(field.type, ())
    if struct is not None:
        needed = [inner.name for inner in msgspec.structs.fields(struct) if inner.required]
        return f"{field.name}: with {', '.join(needed)} below it" if needed else ""
    example = example_of(field.type)
    return "" if example is None else f"{field.name}: {json.dumps(example, ensure_ascii=False)}"
