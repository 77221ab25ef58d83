"""A pipeline is one YAML file; these types are the single source of what it may say.

Every error names file, line, cause and remedy: ``passages.yaml:14 ingest.field_map: …``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import msgspec

from opensearch_batch.core.bulk import MAX_BODY_BYTES
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.field_map import FieldMap
from opensearch_batch.core.objects import split_uri
from opensearch_batch.services import service

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>[^`]+)`")
_AT = re.compile(r" - at `(?P<path>[^`]+)`$")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the documents are: an S3 prefix or object, and globs on the names below it."""

    uri: str
    include: list[str] = []
    exclude: list[str] = []


class BatchPredict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model predicts, from which paths of a record, and how a job of it is submitted and watched.

    `input` is one path, or a list of them: one prediction each. None leaves the choice to the connector. At most
    `max_jobs_in_flight` jobs of the pipeline and model are under way, over all runs; a service that says not now is
    asked again every `retry_interval_s`, for `retry_time_window_s`. Records that failed are asked again `repair_rounds`
    times.

    `model_id` names a model registered with ML Commons, or `stack` a CloudFormation stack that made one, or `connector`
    a file of ``include/connectors/`` whose placeholders `values` fill in; connector and model are then made if missing.
    `dimension` is the length of the model's vectors, checked against the index before anything is paid. `parameters`
    override the connector's.
    """

    service: str
    model_id: str | None = None
    stack: str | None = None
    connector: str | None = None
    values: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    input: str | list[str] | None = None
    dimension: int | None = None
    max_jobs_in_flight: Annotated[int, msgspec.Meta(ge=1)] | None = None
    retry_time_window_s: float = 600.0
    retry_interval_s: float = 60.0
    repair_rounds: Annotated[int, msgspec.Meta(ge=0)] = 2
    poll_every_s: float = 30.0
    poll_at_most_s: float = 300.0
    deadline_s: float | None = None

    @property
    def inputs(self) -> list[str]:
        """The paths the model reads, as a list."""
        if self.input is None:
            return []
        return [self.input] if isinstance(self.input, str) else self.input


class ShardSize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where shards are cut; the service's own limits hold too."""

    max_records: int = 10_000
    max_bytes: int = 100_000_000


class IngestSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The index, the file of ``include/indexes/`` it is created from if absent, and what goes into it."""

    index: str
    field_map: dict[str, Any]
    ingest_fields: list[str] = []
    index_body: str | None = None
    max_body_bytes: int = MAX_BODY_BYTES


class Connections(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Airflow connection ids; `ai` holds the key of an AI service that is not of AWS, None is its usual one."""

    opensearch: str = "opensearch_default"
    aws: str = "aws_default"
    ai: str | None = None


class PipelineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One pipeline: from documents at `source` through `batch_predict` to `ingest`, with its files below `work`."""

    source: Source
    work: str
    batch_predict: BatchPredict
    ingest: IngestSpec
    shard: ShardSize = ShardSize()
    connections: Connections = Connections()
    description: str = ""
    tags: list[str] = []


def load(path: Path) -> PipelineSpec:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or says something a pipeline cannot.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}:1 cannot be read: {error}") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line} no YAML: {error.problem}") from error
    try:
        spec = msgspec.convert(value, PipelineSpec)
    except msgspec.ValidationError as error:
        raise _placed(path, tree, str(error)) from error
    _check(path, tree, spec)
    return spec


def _check(path: Path, tree: Any, spec: PipelineSpec) -> None:  # noqa: ANN401 - a YAML node
    predict = spec.batch_predict
    checks: list[tuple[list[str], Any]] = [
        (["source", "uri"], lambda: split_uri(spec.source.uri)),
        (["work"], lambda: split_uri(spec.work)),
        (["batch_predict", "service"], lambda: service(predict.service)),
        (["ingest", "field_map"], lambda: FieldMap(spec.ingest.field_map, spec.ingest.ingest_fields)),
    ]
    for keys, check in checks:
        try:
            check()
        except ConfigError as error:
            raise ConfigError(f"{path}:{_line(tree, keys)} {'.'.join(keys)}: {error}") from error
    if sum(given is not None for given in (predict.model_id, predict.stack, predict.connector)) != 1:
        line = _line(tree, ["batch_predict"])
        raise ConfigError(f"{path}:{line} batch_predict: give one of model_id, stack and connector")


def _placed(path: Path, tree: Any, message: str) -> ConfigError:  # noqa: ANN401 - a YAML node
    """Turn msgspec's message, which ends with a path, into one with a line and the nearest right key."""
    at = _AT.search(message)
    keys = [key for key in (at["path"] if at else "$").removeprefix("$").strip(".").split(".") if key]
    cause = _AT.sub("", message)
    if unknown := _UNKNOWN.search(cause):
        cause = f"unknown key.{did_you_mean(unknown['key'], _known(keys))}"
        keys.append(unknown["key"])
    return ConfigError(f"{path}:{_line(tree, keys)} {'.'.join(keys) or 'pipeline'}: {cause}")


def _known(keys: list[str]) -> list[str]:
    """Return the keys a pipeline may have at this place."""
    struct: Any = PipelineSpec
    for key in keys:
        struct = next((field.type for field in msgspec.structs.fields(struct) if field.name == key), None)
        if not (isinstance(struct, type) and issubclass(struct, msgspec.Struct)):
            return []
    return [field.name for field in msgspec.structs.fields(struct)]


def _line(node: Any, keys: list[str]) -> int:  # noqa: ANN401 - a YAML node
    """Return the line of the deepest of these keys that the file has, counting from 1."""
    line = 1
    for key in keys:
        pairs = node.value if getattr(node, "id", None) == "mapping" else []
        found = next(((name, value) for name, value in pairs if name.value == key), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
