"""A pipeline file is taken whole, or refused with file, line, cause and remedy: ``books.yaml:14 ingest.index: …``.

`pipeline_rules` says what has to hold beyond the types.
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
    """Return the files of a folder that are pipelines: those of YAML, by their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) if folder.is_dir() else []


class PipelineFile:
    """A file that says what a pipeline can be.

    Args:
        path: a YAML file of ``include/pipelines/``.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something a pipeline cannot; or Airflow takes no such name.
    """

    def __init__(self, path: Path, adapter_of: AdapterOf) -> None:
        self.path = path
        self._file = YamlFile(path)
        if (why := refusal_of(self.name)) is not None:
            raise self.error((), f"rename the file, because its name is its DAG's id: {why}")
        self.spec = self._with_processors(self._convert(self._file.value()))
        for keys, check in rules(self.spec, adapter_of):
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
        return self._file.error(keys, cause)

    def _convert(self, value: Any) -> PipelineSpec:  # noqa: ANN401 - YAML
        try:
            return msgspec.convert(value, PipelineSpec)
        except msgspec.ValidationError as error:
            raise self._placed(str(error)) from error

    def _with_processors(self, spec: PipelineSpec) -> PipelineSpec:
        """Return a spec with its processors read as in a Data Prepper file, which knows other texts as numbers."""
        if spec.ingest.processors is None:
            return spec
        from opensearch_batch.core.ingest.row_documents import read_processors

        processors = read_processors(self._file, ("ingest", "processors"))
        return replace(spec, ingest=replace(spec.ingest, processors=processors))

    def _placed(self, message: str) -> ConfigError:
        """Turn msgspec's message, which ends with a path, into one with a line and what to write."""
        cause, keys = place_in(message)
        if unknown := _UNKNOWN.search(cause):
            known = [field.name for field in fields_at(PipelineSpec, keys)]
            hint = did_you_mean(unknown["key"], known) or f" The keys are {', '.join(known)}."
            return self.error((*keys, unknown["key"]), f"unknown key.{hint}")
        if missing := _MISSING.search(cause):
            return self.error(keys, f"{missing['key']} is missing; write {_look((*keys, missing['key']))}")
        if wrong := _NOT_ONE_OF.search(cause):
            known = list(choices(type_at(PipelineSpec, keys)))
            hint = did_you_mean(wrong["value"], known)
            return self.error(keys, f"{wrong['value']!r} is none of {', '.join(known)}.{hint}")
        look = _look(keys)
        return self.error(keys, cause + (f"; write {look}" if look else ""))


def load(path: Path, adapter_of: AdapterOf) -> PipelineSpec:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something a pipeline cannot.
    """
    return PipelineFile(path, adapter_of).spec


def _look(keys: Sequence[str | int]) -> str:
    """Return how a key is written, from its example."""
    field = field_at(PipelineSpec, keys)
    if field is None:
        return ""
    struct = struct_at(field.type, ())
    if struct is not None:
        needed = [inner.name for inner in msgspec.structs.fields(struct) if inner.required]
        return f"{field.name}: with {', '.join(needed)} below it" if needed else ""
    example = example_of(field.type)
    return "" if example is None else f"{field.name}: {json.dumps(example, ensure_ascii=False)}"
