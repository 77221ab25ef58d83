"""Reads a pipeline file. Errors state file, line, cause and, if known, the remedy: ``books.yaml:14 ingest.index: …``.

`core.pipeline.rules` checks what the types cannot express.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from opensearch_batch.core.config.annotations import (
    choices,
    example_line,
    field_at,
    missing_key,
    not_one_of,
    struct_at,
    unknown_key,
)
from opensearch_batch.core.config.option_types import cause_of
from opensearch_batch.core.config.yaml_file import MISSING_KEY, NOT_ONE_OF, UNKNOWN_KEY, Keys, YamlFile, split_message
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.pipeline.bodies import PACKAGE, read_body
from opensearch_batch.core.pipeline.dag_id import invalid_reason
from opensearch_batch.core.pipeline.rules import rules
from opensearch_batch.core.pipeline.spec import PipelineSpec

SUFFIXES = (".yaml", ".yml")
_ABSENT = object()


def pipeline_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES) if folder.is_dir() else []


class PipelineFile:
    """A YAML file of ``include/pipelines/``, read and checked.

    ConfigError is raised if the file cannot be read, violates the schema or a rule, or has a name that is not a
    valid DAG id.
    """

    def __init__(self, path: Path, adapter_of: AdapterOf) -> None:
        self.path = path
        self._file = YamlFile(path)
        if (reason := invalid_reason(self.name)) is not None:
            raise self.error((), f"the file name is the DAG id, and it is not valid: {reason}")
        self.spec = self._read()
        errors: dict[str, ConfigError] = {}
        for keys, check in rules(self.spec, adapter_of):
            if (cause := cause_of(check)) is not None:
                # Two rules may report the same mistake.
                errors.setdefault(cause, self.error(keys, cause))
        if errors:
            raise _combined(errors.values())

    @property
    def name(self) -> str:
        """The name of the pipeline, which is its DAG id."""
        return self.path.stem

    def body(self, *keys: str) -> dict[str, Any] | None:
        """Return the JSON document in the file that a `connector` or `index_body` option names, None if it is not set.

        `keys` is the path of the option. A file of the user, beside the folder of the pipeline file, comes before one
        of this package. Raise ConfigError if the file is missing or is not valid JSON.
        """
        value: Any = self.spec
        for key in keys:
            value = value[key] if isinstance(value, dict) else getattr(value, key)
        if value is None:
            return None
        try:
            return read_body(keys[-1], value, self.path.parent.parent, PACKAGE)
        except ConfigError as error:
            raise self.error(keys, str(error)) from error

    def error(self, keys: Sequence[str | int], cause: str) -> ConfigError:
        """Return an error with the location of the value at a path of keys."""
        return self._file.error(keys, cause)

    def _read(self) -> PipelineSpec:
        """Return the spec. Scalars in processors are resolved as in a Data Prepper file, all others as in YAML 1.1."""
        spec = self._converted()
        if spec.ingest.processors is None:
            return spec
        from opensearch_batch.core.ingest.row_documents import read_processors

        processors = read_processors(self._file, ("ingest", "processors"))
        return replace(spec, ingest=replace(spec.ingest, processors=processors))

    def _converted(self) -> PipelineSpec:
        """Return the spec, or raise one error for all mistakes.

        msgspec stops at the first mistake; this method then removes the invalid value and converts the file again.
        """
        value, errors = self._file.value(), dict[Keys, ConfigError]()
        while True:
            try:
                spec = msgspec.convert(value, PipelineSpec)
            except msgspec.ValidationError as error:
                keys, located = self._located(str(error))
                # A removed value is missing in the next round, which is not a new mistake.
                is_new = errors.setdefault(keys, located) is located
                if not is_new or not _remove(value, keys):
                    raise _combined(errors.values()) from error
            else:
                if errors:
                    raise _combined(errors.values())
                return spec

    def _located(self, message: str) -> tuple[Keys, ConfigError]:
        """Convert msgspec's message to the keys of the invalid or missing value, and an error.

        The error has the location of the value or, if the value is missing, of the mapping that lacks it.
        """
        cause, keys = split_message(message)
        field = field_at(PipelineSpec, keys)
        located_keys = keys
        if unknown := UNKNOWN_KEY.search(cause):
            struct = struct_at(PipelineSpec, keys)
            located_keys = keys = (*keys, unknown["key"])
            cause = unknown_key(unknown["key"], struct.__struct_fields__ if struct else ())
        elif (missing := MISSING_KEY.search(cause)) and (field := field_at(PipelineSpec, (*keys, missing["key"]))):
            keys = (*keys, missing["key"])
            cause = missing_key(field)
        elif (wrong := NOT_ONE_OF.search(cause)) and field:
            cause = not_one_of(wrong["value"], choices(field.type))
        elif field and (example := example_line(field)):
            cause = f"{cause}; write {example}"
        return keys, self.error(located_keys, cause)


def _combined(errors: Iterable[ConfigError]) -> ConfigError:
    """Return one error with the messages of all errors, one per line."""
    return ConfigError("\n".join(map(str, errors)))


def _remove(value: object, keys: Keys) -> bool:
    """Remove the value at a path of keys; return False if the path does not exist."""
    for key in keys[:-1]:
        value = _member(value, key)
    if not keys or _member(value, keys[-1]) is _ABSENT:
        return False
    del value[keys[-1]]  # type: ignore[attr-defined] # a dict or a list that has the member
    return True


def _member(value: object, key: str | int) -> object:
    if isinstance(value, dict):
        return value.get(key, _ABSENT)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else _ABSENT
