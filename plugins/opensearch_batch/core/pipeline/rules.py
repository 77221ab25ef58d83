"""Rules for a pipeline file that its types cannot express; checked offline, when the file is read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from opensearch_batch.core.config.option_types import Rule
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.errors import ConfigError, did_you_mean
from opensearch_batch.core.ingest.request import check_index_name, check_on_missing
from opensearch_batch.core.jobs.contract import AdapterOf
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.pipeline.index_rules import in_place_rules, source_rules
from opensearch_batch.core.pipeline.spec import ModelSpec, PipelineSpec
from opensearch_batch.core.pipeline.spec_parts import Schedule
from opensearch_batch.core.sharding.listing import refuse_overlap
from opensearch_batch.core.storage.globs import SourceUri
from opensearch_batch.core.storage.objects import split_uri
from opensearch_batch.core.transform.field_map import FieldMap
from opensearch_batch.core.transform.json_path import PlainPath

# Template variables allowed in `source.uri`, and the Airflow expression of each. Airflow's own `ds` is not used,
# because it is in UTC.
VARIABLES = {
    "ds": "logical_date.in_timezone('{timezone}').strftime('%Y-%m-%d')",
    "ds_nodash": "logical_date.in_timezone('{timezone}').strftime('%Y%m%d')",
    "partition_key": "dag_run.partition_key",
}
PRESETS = ("@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_FIELD_MAP = 'field_map: {"title": "$.title", "embedding": "prediction"}'
_VARIABLE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def is_template(uri: str) -> bool:
    """Return whether a source URI depends on the run."""
    return _VARIABLE.search(uri) is not None


def variables_of(uri: str) -> list[str]:
    """Return the names of the variables of a source URI."""
    return _VARIABLE.findall(uri)


def template_of(uri: str, timezone: str) -> str:
    """Return a source URI with its variables as Airflow expressions; dates are in the schedule's time zone."""
    return _VARIABLE.sub(lambda match: f"{{{{ {VARIABLES[match[1]].format(timezone=timezone)} }}}}", uri)


def glob_over_runs(uri: str) -> str:
    """Return a source URI with each variable as a wildcard: a glob that matches the sources of all runs."""
    glob = _VARIABLE.sub("*", uri)
    return f"{glob}**" if glob != uri and glob.endswith("/") else glob


def mode_of(spec: PipelineSpec) -> tuple[Mode, str]:
    """Return what absence from a pipeline's source means, and why."""
    if spec.source.mode is not None:
        return spec.source.mode, "source.mode"
    if spec.source.index is not None:
        return "snapshot", "each run lists the whole index"
    if spec.when.partitions or is_template(spec.source_uri):
        return "append", "each run reads a partition or date of its own"
    if spec.when.new_objects:
        return "append", "runs are started by new objects"
    return "snapshot", "each run reads the whole source"


def rules(spec: PipelineSpec, adapter_of: AdapterOf) -> Iterator[Rule]:
    """Yield the checks, each with the keys that its error names."""
    yield from source_rules(spec)
    if spec.in_place:
        yield from in_place_rules(spec, adapter_of)
    if spec.source.uri:
        yield ("source", "uri"), lambda: _check_uri(spec.source.uri)
    if spec.source.uri and not is_template(spec.source.uri):
        yield ("source", "uri"), lambda: refuse_overlap(spec.source.uri, spec.work_prefix)
    yield from _removal_rules(spec)
    yield ("schedule",), lambda: _check_schedule(spec)
    yield ("work_prefix",), lambda: split_uri(spec.work_prefix)
    if spec.id is not None and "_id" in spec.ingest.field_map:
        yield ("id",), "ingest.field_map also maps _id; keep one of them"
    yield ("batch_predict", "service"), lambda: adapter_of(spec.batch_predict.service)
    for name, model in spec.batch_predict.models.items():
        keys: Keys = ("batch_predict",) if model is spec.batch_predict else ("batch_predict", "instead", name)
        yield keys, lambda name=name, model=model: _check_model(name, model, adapter_of)  # type: ignore[misc] # binds the current value
    for path in spec.batch_predict.inputs:
        yield ("batch_predict", "input"), lambda path=path: PlainPath.parse(path)  # type: ignore[misc] # as above
    yield ("ingest", "index"), lambda: check_index_name(spec.ingest.index)
    yield from _document_rules(spec)
    for number, test in enumerate(spec.tests):
        if (test.predictions is None) == (test.outputs is None):
            yield ("tests", number), "set exactly one of predictions and outputs"


def _removal_rules(spec: PipelineSpec) -> Iterator[Rule]:
    source, deleted = spec.source, spec.source.deleted
    deletes = source.on_removed == "delete"
    unknown = "without _id, the documents to delete are not known; write id: $.id"
    mode, why = mode_of(spec)
    if deletes and mode == "append":
        cause = f"in mode append ({why}) no record counts as removed; write mode: snapshot, or remove on_removed"
        yield ("source", "on_removed"), cause
    has_id = "_id" in spec.field_map
    if deletes and not has_id:
        yield ("source", "on_removed"), unknown
    if deleted is None:
        return
    yield ("source", "deleted", "path"), lambda: PlainPath.parse(deleted.path)
    if not has_id:
        yield ("source", "deleted"), unknown
    if not source.prepare:
        cause = "prepare: false submits an object unchanged, with its tombstones; remove prepare: false or deleted"
        yield ("source", "deleted"), cause


def _document_rules(spec: PipelineSpec) -> Iterator[Rule]:
    ingest = spec.ingest
    if ingest.processors is None:
        if not (ingest.field_map or ingest.ingest_fields):
            yield ("ingest",), f"field_map is missing; write {_FIELD_MAP}, or processors"
        yield ("ingest", "field_map"), lambda: _compile_field_map(spec)
        yield ("ingest", "on_missing"), lambda: check_on_missing(spec.on_missing, _compile_field_map(spec).fields)
        if ingest.when is not None:
            cause = "when works only with processors; replace field_map with processors, or remove when"
            yield ("ingest", "when"), cause
        return
    for name in ("field_map", "ingest_fields", "on_missing"):
        if getattr(ingest, name):
            yield ("ingest", name), "cannot be combined with processors; keep one of them"
    if ingest.on_unmatched != "dead_letter":
        cause = "with processors, a record without a prediction always becomes a dead letter; remove on_unmatched"
        yield ("ingest", "on_unmatched"), cause
    yield ("ingest", "when"), lambda: _check_condition(ingest.when)
    yield ("ingest", "routing"), lambda: _check_member(ingest.routing, "routing")
    yield ("id",), lambda: _check_member(spec.id, "id")


def _check_condition(text: str | None) -> None:
    from opensearch_batch.core.transform.expressions.expression import compile_condition

    compile_condition(text)


def _check_member(path: str | None, option: str) -> None:
    from opensearch_batch.core.ingest.row_documents import member_at

    if path is not None:
        member_at(path, option)


def _compile_field_map(spec: PipelineSpec) -> FieldMap:
    return FieldMap(spec.field_map, spec.ingest.ingest_fields)


def _check_uri(uri: str) -> None:
    bucket, key = split_uri(uri)
    if not key:
        raise ConfigError(f"{uri!r} names only a bucket; write s3://{bucket}/ to read all of it")
    for name in _VARIABLE.findall(uri):
        if name not in VARIABLES:
            known = ", ".join(f"{{{{ {each} }}}}" for each in VARIABLES)
            raise ConfigError(f"unknown variable {{{{ {name} }}}}; known: {known}.{did_you_mean(name, VARIABLES)}")
    if "{{" in _VARIABLE.sub("", uri) or "{%" in uri:
        raise ConfigError(f"{uri!r}: invalid template; write variables as {{{{ ds }}}}")
    if SourceUri(uri).is_object and "." not in _VARIABLE.sub("", uri.rpartition("/")[2]):
        raise ConfigError(
            f"{uri!r}: a prefix must end with a slash: write {uri}/; to read an object without an extension, write its "
            "prefix here and its name in source.include"
        )


def _check_schedule(spec: PipelineSpec) -> None:
    schedule, variables = spec.when, set(_VARIABLE.findall(spec.source_uri))
    configured = [name for name in ("cron", "partitions", "assets", "new_objects") if getattr(schedule, name)]
    if len(configured) > 1 or (isinstance(spec.schedule, Schedule) and not configured):
        raise ConfigError(
            f"set exactly one of cron, partitions, assets and new_objects; found {' and '.join(configured) or 'none'}"
        )
    if cron := schedule.cron or schedule.partitions:
        _check_cron(cron)
    _check_timezone(schedule.timezone)
    if "partition_key" in variables and not schedule.partitions:
        raise ConfigError('source.uri contains {{ partition_key }}, which needs schedule: {partitions: "0 2 * * *"}')
    if schedule.partitions and variables - {"partition_key"}:
        raise ConfigError(
            "a partitioned run has no date; use {{ partition_key }} in source.uri (formatted by key_format)"
        )
    if (schedule.new_objects or schedule.assets) and variables:
        raise ConfigError("a run started by objects or assets has no date; remove the variables from source.uri")


def _check_cron(cron: str) -> None:
    if cron in PRESETS:
        return
    from croniter import croniter

    if cron.startswith("@") or not croniter.is_valid(cron):
        hint = did_you_mean(cron, PRESETS)
        raise ConfigError(f'{cron!r} is not a cron expression; write "0 2 * * *" or one of {", ".join(PRESETS)}.{hint}')


def _check_timezone(name: str) -> None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ConfigError(f"timezone: unknown time zone {name!r}; write one like Europe/Vienna") from error


def _check_model(name: str, model: ModelSpec, adapter_of: AdapterOf) -> None:
    adapter_of(name)
    if sum(value is not None for value in (model.model_id, model.stack, model.connector)) != 1:
        raise ConfigError("set exactly one of model_id, stack and connector")
