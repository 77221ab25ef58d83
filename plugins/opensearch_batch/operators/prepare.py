"""Stage prepare: checks everything that can be checked before a job is paid for, and returns the shards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from airflow.sdk import BaseOperator, Context

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import with_source_paths, written_fields
from opensearch_batch.core.jobs.contract import ServiceAdapter, check_connector
from opensearch_batch.core.opensearch.cloudformation import model_of_stack
from opensearch_batch.core.opensearch.ml_commons import Model, fill
from opensearch_batch.core.runs.plan import RunPlan, dead_letter_lines, null_lines
from opensearch_batch.core.runs.preparation import CutOptions, check_index, create_missing_index, cut_source
from opensearch_batch.core.runs.source_ranges import record_source_ranges
from opensearch_batch.core.sharding.listing import Listing, NoDocuments, find_documents, record_source_state
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.dead_letters import DeadLetter, refuse_dead_letters
from opensearch_batch.core.storage.json_document import save
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import ALL, MAX_DEAD_LETTERS, RunVersion
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import Manifest, Shard
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.hooks.ai_services import connector_credential
from opensearch_batch.hooks.aws import aws_client, object_storage
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink
from opensearch_batch.operators.base import (
    DocumentsOperator,
    final_errors_fail_the_task,
    is_dry_run,
    layout_of,
    refuse_too_many,
    refuse_unknown_conf,
    rendered,
    run_key_of,
)
from opensearch_batch.operators.log_tables import dead_letters_url, log_counts
from opensearch_batch.services.registry import adapter_of

if TYPE_CHECKING:
    from opensearch_batch.core.data_prepper.scan_prepare import ScanManifest

# Template of the model id in the XCom `run`.
MODEL_ID = "{{ ti.xcom_pull(task_ids='prepare', key='run')['model_id'] }}"


class PrepareOperator(BaseOperator):
    """Base of the `prepare` stages: returns the shards, over which the next stages are mapped."""

    ui_color = "#e8f0fe"

    @final_errors_fail_the_task()
    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Check, and return the shards."""
        refuse_unknown_conf(self, context)
        return [msgspec.to_builtins(shard) for shard in self._prepare(context)]

    def _prepare(self, context: Context) -> Sequence[Shard]:
        """Implement in a subclass: return the shards of this run, none in a dry run."""
        raise NotImplementedError

    def _push(self, context: Context, uri: str, manifest: Manifest | ScanManifest, **members: object) -> None:
        """Push the XCom `run`, which later stages read; call this last, because the XCom also means success."""
        context["ti"].xcom_push(key="run", value={"manifest": uri, "model_id": manifest.model_id, **members})


class OpenSearchPrepareOperator(DocumentsOperator, PrepareOperator):
    """Check model and index, cut the source into shards, write the manifest.

    Returns a list of shards, each ``{id, input, job, records, bytes}``, and pushes the XCom ``run``: ``{manifest,
    model_id}``. A run with the param ``dry_run`` writes nothing, logs the shards and jobs that it would create, pushes
    them as the XCom ``plan``, and returns no shards.

    Args:
        source: an S3 prefix that ends in ``/``, an object, or a glob.
        model_id: a model registered with ML Commons; without it, `stack` or `connector` is needed.
        stack: a CloudFormation stack whose outputs name the model.
        connector: the body of a connector, from which connector and model are created if missing. `values` replace its
            placeholders. Its credential comes from the connection of the AWS or AI service, or is the role ``role_arn``
            of `values`.
        values: values for the connector's placeholders.
        parameters: override the connector's parameters in every job.
        inputs: the paths in a record that the model reads, one prediction for each; the connector decides if empty.
        dimension: length of the model's vectors.
        index_body: settings and mappings to create the index with, if it is missing.
        include: globs; the name of an object below the prefix must match one of them.
        exclude: globs; the name of an object must match none of them.
        source_format: ``jsonl``, ``json``, ``csv`` or ``parquet``; from the file extension if None.
        passthrough: the objects are service-ready inputs; each is submitted as one shard, unchanged and not copied.
        watched: the ``index`` and ``service`` of the runs that the schedule `new_objects` starts. A run with these
            values and without a limit stores the state of the source that it prepared; any other run does not.
        on_empty: if there are no documents, ``skip`` returns no shards and ``fail`` fails.
        max_dead_letters: the share of records that may be dead letters, such as ``5%``; with more, the task fails
            before a job is paid for.
        limit: maximum number of records, from the first object on; all if empty.
        max_records: maximum number of records in a shard.
        max_bytes: maximum size of a shard.
        kwargs: the arguments of `DocumentsOperator`, which are checked against the index, and of `PipelineOperator`.

    Raises:
        AirflowFailException: the configuration or the source has an error; nothing was paid for.
        RetriableError: a server did not respond.
    """

    template_fields = (
        "source",
        "work_prefix",
        "service",
        "index",
        "model_id",
        "stack",
        "values",
        "parameters",
        "inputs",
        "connector",
        "include",
        "exclude",
        "limit",
        "max_dead_letters",
    )
    operator_extra_links = (DeadLettersLink(),)

    def __init__(
        self,
        *,
        source: str,
        model_id: str | None = None,
        stack: str | None = None,
        connector: Mapping[str, Any] | str | None = None,
        values: Mapping[str, str] | str | None = None,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        dimension: int | None = None,
        index_body: Mapping[str, Any] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        source_format: Format | None = None,
        passthrough: bool = False,
        watched: Mapping[str, str] | None = None,
        on_empty: Literal["fail", "skip"] = "fail",
        max_dead_letters: str = MAX_DEAD_LETTERS,
        limit: int | str | None = None,
        max_records: int = 10_000,
        max_bytes: int = 100_000_000,
        **kwargs: Any,  # noqa: ANN401 - the arguments of DocumentsOperator
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.model_id = model_id
        self.stack = stack
        # Airflow stores template fields, so they must not contain the credential of a connector's file.
        self.connector = connector if isinstance(connector, str) else without_credential(connector)
        self.values = values
        self.parameters = parameters
        self.inputs = inputs
        self.dimension = dimension
        self.index_body = index_body
        self.include = include
        self.exclude = exclude
        self.source_format = source_format
        self.passthrough = passthrough
        self.watched = watched
        self.on_empty = on_empty
        self.max_dead_letters = max_dead_letters
        self.limit = limit
        self.max_records = max_records
        self.max_bytes = max_bytes

    def _prepare(self, context: Context) -> Sequence[Shard]:
        dry_run, layout = is_dry_run(context), layout_of(self.work_prefix, context)
        store = object_storage(self.aws_conn_id)
        if not dry_run:
            require_conditional_writes(store, layout.conditional_writes())
        # Taken before the listing, so that a run with a later time lists at least the objects that this run lists.
        listed_at = time.time()
        self._is_replay = layout.is_prepare_dead_letters(self.source)
        if self._is_replay:
            self._read_dead_letters()
        listing = self._list(store, layout)
        if listing is None:
            return []
        records_source_state = self._is_watched_run(dry_run=dry_run)
        if records_source_state:
            record_source_state(store, layout, listing, done=False)
        samples: list[DeadLetter] | None = [] if dry_run else None
        manifest = msgspec.structs.replace(
            self._cut(store, layout, listing, context, samples), run_version=self._run_version(listed_at)
        )
        if samples is not None:
            plan = RunPlan.of(store, layout, manifest)
            nulls = null_lines(store, listing, self.field_map, source_format=self.source_format)
            for line in (*plan.lines(), *dead_letter_lines(samples), *nulls):
                self.log.info("dry run: %s", line)
            context["ti"].xcom_push(key="plan", value=msgspec.to_builtins(plan))
            return []
        if manifest.dead_letters:
            self.dead_letters_url = dead_letters_url(store, manifest.dead_letters)
        log_counts(self.log, manifest.source, manifest.counts, store, manifest.dead_letters)
        counts, max_share = manifest.counts, ALL if self._is_replay else self.max_dead_letters
        refuse_dead_letters(
            store, counts.dead_letters, read=counts.read, max_share=max_share, locations=[manifest.dead_letters]
        )
        refuse_too_many(len(manifest.shards), "the source", "shards", "shard.max_records of the pipeline")
        if self.index_body is not None:
            create_missing_index(OpenSearchMLHook(self.opensearch_conn_id).cluster, self.index, self.index_body)
        uri = layout.manifest(manifest.run_key)
        save(store, uri, manifest)
        record_source_ranges(store, layout, manifest, index=self.index)
        if records_source_state:
            record_source_state(store, layout, listing, done=True)
        self._push(context, uri, manifest)
        self.log.info("%d shards; manifest %s", len(manifest.shards), uri)
        return [prepared.shard for prepared in manifest.shards]

    def _read_dead_letters(self) -> None:
        """Read the source as dead letters of an earlier run.

        Raises:
            ConfigError: the pipeline submits objects unchanged, so it has no dead letters of `prepare`.
        """
        if self.passthrough:
            raise ConfigError(f"{self.source}: a pipeline with prepare: false has no dead letters to replay")
        self.source_format = "dead_letters"

    def _list(self, store: S3Objects, layout: Layout) -> Listing | None:
        """Return the source's objects, None if there are none and `on_empty` allows that."""
        try:
            return find_documents(store, layout, self.source, include=self.include, exclude=self.exclude)
        except NoDocuments as error:
            if self.on_empty == "fail":
                raise
            self.log.info("%s", error)
            return None

    def _is_watched_run(self, *, dry_run: bool) -> bool:
        """Whether this run has the values of the runs that `new_objects` starts."""
        if self.watched is None or dry_run or self.limit or self._is_replay:
            return False
        return (self.index, self.service) == (self.watched["index"], self.watched["service"])

    def _run_version(self, listed_at: float) -> RunVersion | None:
        """Return the version of the run; None for a run that does not read all records: with a limit, or a replay."""
        if self.limit or self._is_replay:
            return None
        return RunVersion(listed_at, digest(self.source, *self.include, "", *self.exclude))

    def _cut(
        self,
        store: S3Objects,
        layout: Layout,
        listing: Listing,
        context: Context,
        samples: list[DeadLetter] | None,
    ) -> Manifest:
        """Check model and index, then cut the source; see `cut_source` about `samples`."""
        dry_run, adapter = is_dry_run(context), adapter_of(self.service)
        model = self._model(dry_run=dry_run)
        parameters = {**model.parameters, **rendered(self.parameters)}
        adapter.check(parameters, self.inputs)
        vectors = self._check_index(adapter, parameters)
        manifest = cut_source(
            store,
            layout,
            listing,
            run_key=run_key_of(context),
            adapter=adapter,
            parameters=parameters,
            inputs=self.inputs,
            options=CutOptions(
                source_format=self.source_format,
                passthrough=self.passthrough,
                limit=int(self.limit) if self.limit else None,
                max_records=self.max_records,
                max_bytes=self.max_bytes,
            ),
            samples=samples,
        )
        return msgspec.structs.replace(manifest, model_id=model.id, vectors=vectors)

    def _check_index(self, adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> list[VectorField]:
        """Check that the predictions fit the index; return the vector fields that `ingest` writes."""
        request = with_source_paths(self.request(), adapter, parameters, self.inputs)
        return check_index(
            OpenSearchMLHook(self.opensearch_conn_id).cluster,
            request,
            written_fields(request, adapter, parameters, self.inputs),
            index_body=self.index_body,
            dimension=self.dimension,
        )

    def _model(self, *, dry_run: bool) -> Model:
        """Return the model; create it from the connector, except in a dry run."""
        ml = OpenSearchMLHook(self.opensearch_conn_id).ml
        model_id = self.model_id
        if not model_id and self.stack:
            model_id = model_of_stack(aws_client("cloudformation", self.aws_conn_id), self.stack)
        if model_id:
            return ml.model(model_id)
        connector, values = rendered(self.connector), rendered(self.values)
        if not connector:
            raise ConfigError("no model; give model_id, the stack that created the model, or a connector")
        body = fill(connector, values, "connector")
        check_connector(adapter_of(self.service), body)
        if dry_run:
            return Model("", dict(body.get("parameters", {})))
        conn_id, credential = connector_credential(
            self.service, aws_conn_id=self.aws_conn_id, ai_conn_id=self.ai_conn_id, role_arn=values.get("role_arn")
        )
        return ml.ensure_model(str(body["name"]), {**body, "credential": credential}, conn_id=conn_id)


def without_credential(connector: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a connector's body without its credential."""
    return None if connector is None else {name: connector[name] for name in connector if name != "credential"}
