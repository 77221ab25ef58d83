"""Stage prepare: checks everything that can be checked before a job is paid for, and returns the shards, in groups."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from airflow.sdk import Context
from airflow.sdk.exceptions import DownstreamTasksSkipped

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import with_source_paths, written_fields
from opensearch_batch.core.jobs.contract import ServiceAdapter
from opensearch_batch.core.jobs.predict_action import RealtimeLimit, realtime_limit
from opensearch_batch.core.ledger.resolve import Mode
from opensearch_batch.core.opensearch.ml_commons import Model
from opensearch_batch.core.runs.index_check import check_index
from opensearch_batch.core.runs.plan import RunPlan, dead_letter_lines, null_lines
from opensearch_batch.core.runs.preparation import Preparation, PreparedRun
from opensearch_batch.core.runs.prepare_options import OnRemoved, PrepareOptions, fingerprint_of, scope_of
from opensearch_batch.core.runs.run_summary import first_start
from opensearch_batch.core.runs.shard_groups import group_count, with_empty_groups
from opensearch_batch.core.runs.spread import SPLIT_BYTES, SpreadSettings, begin
from opensearch_batch.core.sharding.document_ids import DeletedWhen
from opensearch_batch.core.sharding.listing import Listing, NoDocuments, find_documents, record_source_state
from opensearch_batch.core.storage.conditional_writes import require_conditional_writes
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import ALL, MAX_DEAD_LETTERS, MAX_REMOVED
from opensearch_batch.core.types.datasets import RunDatasets, index_dataset
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.manifest import Manifest, ShardGroup
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.hooks.aws import object_storage
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.hooks.pipeline_model import pipeline_model, without_credential
from opensearch_batch.operators.base import (
    DocumentsOperator,
    PrepareOperator,
    interval_start,
    is_dry_run,
    is_forced,
    layout_of,
    max_groups,
    rendered_dict,
    run_key_of,
    run_template,
)
from opensearch_batch.operators.run_start import StartsRun, set_groups
from opensearch_batch.operators.source_objects import source_objects
from opensearch_batch.services.registry import adapter_of

MODEL_ID = run_template("model_id")


class OpenSearchPrepareOperator(DocumentsOperator, PrepareOperator, StartsRun):
    """Check model and index, compare the source with the record ledger, stage what changed, write the manifest.

    Returns groups of shards (`core.types.manifest.ShardGroup`), and pushes the XCom ``run``: ``{manifest, model_id}``.
    If nothing changed since the last run, there are no groups and no XCom. A run with the param ``dry_run`` writes
    nothing, logs the shards and jobs that it would create, pushes them as the XCom ``plan``, and returns no groups.

    The param ``force`` reads all objects and pays for all predictions; ``rebuild`` reads all objects and writes all
    documents from the prediction store.

    If more than `split_bytes` changed, and there is a task `split`, the stages of `operators.spread` do the rest of the
    work, and the last one of them sets the groups and the XCom. Otherwise these stages are skipped.

    Args:
        source: an S3 prefix that ends in ``/``, an object, or a glob; or the URI of an index (`index_uri`).
        source_index: the fields of `core.runs.index_source.SourceIndex`, if the pipeline reads an index.
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
        document_settings: other settings of `ingest` that affect the documents; if one changes, all documents are
            written again.
        include, exclude: globs; the name of an object below the prefix must match one, and none of them.
        source_format: ``jsonl``, ``json``, ``csv`` or ``parquet``; from the file extension if None.
        passthrough: the objects are service-ready inputs; each is submitted as one shard, unchanged and not copied.
        own: the ``source``, ``index`` and ``service`` of the pipeline's own runs. A run with other values, or with a
            limit, is a trial: it deletes nothing and does not change the ledger.
        partition: ``{key_format, timezone}`` if own runs read a partition or date of their own. The newest one wins,
            not the newest run.
        watched: the schedule `new_objects` starts the runs, so own runs store the state of the source.
        mode: ``snapshot``: a record that is absent was removed; ``append``: absence means nothing.
        on_removed: ``delete`` deletes the documents of removed records.
        max_removed: the share of the documents that may be deleted because their records were removed.
        deleted: ``{path, equals}``: which records delete their documents.
        predictions: ``shared``: the prediction store is shared by the pipelines of the work prefix.
        on_empty: if there are no documents, ``skip`` returns no groups and ``fail`` fails.
        max_dead_letters: the share of records that may be dead letters, such as ``5%``; with more, the task fails
            before a job is paid for.
        limit: maximum number of records, from the first object on; all if empty.
        max_records, max_bytes: maximum number of records in a shard, and its maximum size.
        split_bytes: size of the part of a large source that one task reads.
        split: the task id of the stage split; without it, this task always does all the work.
        realtime_below: fewer records to predict than these are sent one by one through ``_predict``; None: fewer than a
            job of the service needs, if the connector can do it; 0: never.

    Raises:
        AirflowFailException: the configuration or the source has an error; nothing was paid for.
        RetriableError: a server did not respond, or another run changed the ledger meanwhile.
    """

    template_fields = (
        *("source", "work_prefix", "service", "index", "model_id", "stack", "values", "parameters", "inputs"),
        *("connector", "include", "exclude", "own", "limit", "max_dead_letters", "max_removed"),
        # The api-server's pages read these from the DAG that Airflow stores.
        *("predictions", "opensearch_conn_id", "aws_conn_id", "ai_conn_id"),
    )

    def __init__(
        self,
        *,
        source: str,
        source_index: Mapping[str, Any] | None = None,
        model_id: str | None = None,
        stack: str | None = None,
        connector: Mapping[str, Any] | str | None = None,
        values: Mapping[str, str] | str | None = None,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        dimension: int | None = None,
        index_body: Mapping[str, Any] | None = None,
        document_settings: Mapping[str, Any] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        source_format: Format | None = None,
        passthrough: bool = False,
        own: Mapping[str, str] | None = None,
        partition: Mapping[str, str] | None = None,
        watched: bool = False,
        mode: Mode = "snapshot",
        on_removed: OnRemoved = "keep",
        max_removed: str = MAX_REMOVED,
        deleted: Mapping[str, Any] | None = None,
        predictions: Literal["own", "shared"] = "own",
        on_empty: Literal["fail", "skip"] = "fail",
        max_dead_letters: str = MAX_DEAD_LETTERS,
        limit: int | str | None = None,
        max_records: int = 10_000,
        max_bytes: int = 100_000_000,
        split_bytes: int = SPLIT_BYTES,
        split: str | None = None,
        realtime_below: int | None = None,
        **kwargs: Any,  # noqa: ANN401 - the arguments of DocumentsOperator
    ) -> None:
        super().__init__(**kwargs)
        self.source, self.source_index = source, source_index
        self.model_id, self.stack = model_id, stack
        # Airflow stores template fields, so they must not contain the credential of a connector's file.
        self.connector = connector if isinstance(connector, str) else without_credential(connector)
        self.values, self.parameters = values, parameters
        self.inputs, self.dimension = inputs, dimension
        self.index_body = index_body
        self.settings = dict(document_settings or {})
        self.include, self.exclude = include, exclude
        self.source_format, self.passthrough = source_format, passthrough
        self.own, self.partition = own, partition
        self.watched, self.mode = watched, mode
        self.on_removed, self.max_removed = on_removed, max_removed
        self.deleted = deleted
        self.predictions, self.on_empty = predictions, on_empty
        self.max_dead_letters, self.limit = max_dead_letters, limit
        self.max_records, self.max_bytes = max_records, max_bytes
        self.split_bytes, self.split, self.realtime_below = split_bytes, split, realtime_below

    def execute(self, context: Context) -> list[dict[str, Any]]:
        self._is_spread = False
        groups = super().execute(context)
        if self.split is None or self._is_spread:
            return groups
        # An exception that skips tasks leaves no value.
        set_groups(context, self.task_id, groups)
        raise DownstreamTasksSkipped(tasks=[self.split])  # type: ignore[no-untyped-call] # Airflow ships no type

    def _prepare(self, context: Context) -> Sequence[ShardGroup]:
        store, layout = object_storage(self.aws_conn_id), layout_of(self.work_prefix, context)
        # Taken before the listing, so that a run with a later time lists at least the objects that this run lists.
        listed_at = time.time()
        self._groups_before, self._started_at = 0, listed_at
        if not is_dry_run(context):
            require_conditional_writes(store, layout.conditional_writes())
            self._groups_before = group_count(store, layout.manifest(run_key_of(context)))
            self._started_at = first_start(store, layout, run_key_of(context), now=listed_at)
        settings, inputs = self.source_index, self.inputs
        with source_objects(store, settings, self.source, index=self.index, inputs=inputs) as self._source:
            groups = self._prepare_source(store, layout, context, listed_at)
        return with_empty_groups(groups, self._groups_before)

    def _prepare_source(
        self, store: S3Objects, layout: Layout, context: Context, listed_at: float
    ) -> Sequence[ShardGroup]:
        groups = list[ShardGroup]()
        dry_run, self._is_replay = is_dry_run(context), layout.is_prepare_dead_letters(self.source)
        if self._is_replay:
            if self.passthrough:
                raise ConfigError(f"{self.source}: a pipeline with prepare: false has no dead letters to replay")
            self.source_format = "dead_letters"
        elif self._source.blocks is not None:
            self.source_format = "jsonl"
        listing = self._list(layout)
        if listing is None:
            return groups
        records_source_state = self.watched and not dry_run and not self._is_trial()
        if records_source_state:
            record_source_state(store, layout, listing, done=False)
        is_own = self.own is None or self.source == self.own["source"]
        at_s = interval_start(context, **self.partition) if self.partition and is_own else None
        preparation = self._preparation(layout, listing, context, listed_at if at_s is None else at_s)
        settings = SpreadSettings(self.split_bytes, max_groups(), records_source_state, self._groups_before)
        self._is_spread = self.split is not None and begin(store, layout, preparation, settings)
        if self._is_spread:
            return groups
        prepared = preparation.run()
        if prepared is None:
            self.log.info("nothing changed: %d objects of %s", len(listing.objects), listing.source)
        elif dry_run:
            self._show_plan(layout, listing, prepared, context)
        else:
            groups, run = self.start(store, layout, prepared, groups_before=self._groups_before)
            context["ti"].xcom_push(key="run", value=run)
        if records_source_state:
            record_source_state(store, layout, listing, done=True)
        return groups

    def _show_plan(self, layout: Layout, listing: Listing, prepared: PreparedRun, context: Context) -> None:
        """Log what a run would do, and push it as the XCom ``plan``."""
        store = self._source.store
        plan = RunPlan.of(store, layout, prepared.manifest)
        nulls = null_lines(store, listing, self.field_map, source_format=self.source_format)
        for line in (*plan.lines(), *dead_letter_lines(prepared.samples), *nulls):
            self.log.info("dry run: %s", line)
        context["ti"].xcom_push(key="plan", value=msgspec.to_builtins(plan))

    def _list(self, layout: Layout) -> Listing | None:
        """Return the source's objects, None if there are none and `on_empty` allows that."""
        store = self._source.store
        try:
            return find_documents(store, layout, self.source, include=self.include, exclude=self.exclude)
        except NoDocuments as error:
            if self.on_empty == "fail":
                raise
            self.log.info("%s", error)
            return None

    def _is_trial(self) -> bool:
        """Whether this run has other values than the pipeline's own runs, or reads only some of the records."""
        values = {"source": self.source, "index": self.index, "service": self.service}
        return bool(self.limit) or self._is_replay or (self.own is not None and values != dict(self.own))

    def _preparation(self, layout: Layout, listing: Listing, context: Context, at_s: float) -> Preparation:
        """Check model and index; return the preparation of the source."""
        store, adapter = self._source.store, adapter_of(self.service)
        model = self._model(dry_run=is_dry_run(context))
        parameters = {**model.parameters, **rendered_dict(self.parameters)}
        adapter.check(parameters, self.inputs)
        realtime = realtime_limit(self.realtime_below, adapter, model.actions, parameters, self.inputs)
        options = self._options(context, realtime)
        vectors, uuid = self._check_index(adapter, parameters)
        self._source.check_target(self.index, uuid)
        request, url = self.request(), OpenSearchMLHook(self.opensearch_conn_id).cluster.url
        manifest = Manifest(
            pipeline=layout.pipeline,
            run_key=run_key_of(context),
            run_id=context["dag_run"].run_id,
            started_at=self._started_at,
            source=listing.source,
            scope=scope_of(self.source, self.include, self.exclude),
            service=adapter.name,
            model_id=model.id,
            index=self.index,
            index_uuid=uuid,
            in_place=self._source.in_place,
            fingerprint=fingerprint_of(
                request,
                adapter,
                parameters,
                self.inputs,
                objects=store,
                index_body=self.index_body,
                options=options,
            ),
            vectors=vectors,
            parameters=parameters,
            inputs=tuple(self.inputs),
            predictions=layout.predictions(shared=self.predictions == "shared"),
            datasets=RunDatasets([self._source.dataset(listing.source)], [index_dataset(url, self.index)]),
            realtime_below=realtime.below,
        )
        return Preparation(
            store, layout, listing, manifest, adapter=adapter, request=request, at_s=at_s, options=options
        )

    def _options(self, context: Context, realtime: RealtimeLimit) -> PrepareOptions:
        force, rebuild = is_forced(context), bool(context["params"].get("rebuild"))
        if force and rebuild:
            raise ConfigError("force pays for all predictions, and rebuild pays for none; choose one of them")
        return PrepareOptions(
            mode=self.mode,
            on_removed=self.on_removed,
            max_removed=self.max_removed,
            deleted=None if self.deleted is None else msgspec.convert(self.deleted, DeletedWhen),
            max_dead_letters=ALL if self._is_replay else self.max_dead_letters,
            source_format=self.source_format,
            passthrough=self.passthrough,
            limit=int(self.limit) if self.limit else None,
            max_records=self.max_records,
            max_bytes=self.max_bytes,
            realtime=realtime,
            force=force,
            rebuild=rebuild,
            is_trial=self._is_trial(),
            dry_run=is_dry_run(context),
        )

    def _check_index(self, adapter: ServiceAdapter, parameters: Mapping[str, Any]) -> tuple[list[VectorField], str]:
        """Check that the predictions fit the index; return its vector fields, and its UUID (empty if it is missing)."""
        request = with_source_paths(self.request(), adapter, parameters, self.inputs)
        return check_index(
            OpenSearchMLHook(self.opensearch_conn_id).cluster,
            request,
            written_fields(request, adapter, parameters, self.inputs),
            index_body=self.index_body,
            dimension=self.dimension,
            in_place=self._source.in_place,
        )

    def _model(self, *, dry_run: bool) -> Model:
        """Return the model; create it from the connector, except in a dry run."""
        return pipeline_model(
            OpenSearchMLHook(self.opensearch_conn_id).ml,
            adapter_of(self.service),
            model_id=self.model_id,
            stack=self.stack,
            connector=rendered_dict(self.connector),
            values=rendered_dict(self.values),
            aws_conn_id=self.aws_conn_id,
            ai_conn_id=self.ai_conn_id,
            dry_run=dry_run,
        )
