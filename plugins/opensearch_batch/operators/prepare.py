"""prepare: documents below a prefix -> service-ready shards; and every check that can be made before money is spent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.prediction_map import check_ready_made, holds_record, over_sources, written_fields
from opensearch_batch.core.ingest.request import IngestRequest
from opensearch_batch.core.jobs.contract import ServiceAdapter, job_keys
from opensearch_batch.core.opensearch.cloudformation import model_of_stack
from opensearch_batch.core.opensearch.cluster import check_dimension, vector_fields
from opensearch_batch.core.opensearch.ml_commons import Model, fill
from opensearch_batch.core.runs.plan import Planned
from opensearch_batch.core.runs.source_ranges import note_places
from opensearch_batch.core.sharding.cut import ShardLimits
from opensearch_batch.core.sharding.listing import Listing, NoDocuments, find_documents, note_prepared
from opensearch_batch.core.sharding.passthrough import take_ready_made
from opensearch_batch.core.sharding.shard_writer import Prepare
from opensearch_batch.core.storage.dead_letters import DeadLetters
from opensearch_batch.core.storage.layout import Layout
from opensearch_batch.core.storage.manifests import save
from opensearch_batch.core.storage.s3 import S3Objects
from opensearch_batch.core.types.counts import RunVersion
from opensearch_batch.core.types.formats import Format
from opensearch_batch.core.types.identity import digest
from opensearch_batch.core.types.manifest import Manifest, PrepareCounts, PreparedShard
from opensearch_batch.core.types.vector_field import VectorField
from opensearch_batch.hooks.ai_services import ai_credential, cloudformation
from opensearch_batch.hooks.aws import connector_credential, object_storage
from opensearch_batch.hooks.connections import AWS_CONN_ID, OPENSEARCH_CONN_ID
from opensearch_batch.hooks.opensearch import OpenSearchMLHook
from opensearch_batch.links.opensearch import DeadLettersLink
from opensearch_batch.operators.base import chosen, errors_end_the_task, refuse_many, run_key_of, work_of
from opensearch_batch.services.registry import adapter_of


class OpenSearchPrepareOperator(BaseOperator):
    """Check model and index, cut the source into shards, write the manifest.

    Returns a list of shards, each ``{id, input, job, records, bytes}``, to map the next stages over, and pushes the
    XCom ``run``: ``{manifest, model_id}``. A run with the param ``dry_run`` writes nothing, logs which shards and jobs
    there would be, pushes that as the XCom ``plan``, and returns no shards.

    Args:
        source: S3 prefix or object.
        work: S3 prefix for everything this pipeline writes.
        service: the AI service, such as ``sagemaker``.
        index: the index that ingest will write.
        field_map: what ingest will map; checked against the index here, before anything is paid.
        ingest_fields: paths ingest keeps under their own last name.
        processors: what makes the documents in place of a field map.
        model_id: a model registered with ML Commons; or else
        stack: a CloudFormation stack whose outputs name the model; or else
        connector: the body of a connector, from which connector and model are made if missing. Its placeholders take
            `values`; its credential comes from the AWS connection, or is the role `values` names as ``role_arn``.
        values: what fills the connector's placeholders.
        parameters: override the connector's parameters in every job.
        inputs: the paths in a record that the model reads, one prediction each; the connector's own choice if none.
        dimension: length of the model's vectors.
        index_body: creates the index if it is absent.
        routing: the path of a document's routing value.
        include: globs a source's name below the prefix must match one of.
        exclude: globs it must not match.
        source_format: ``jsonl``, ``json``, ``csv`` or ``parquet``; by the names' endings if None.
        ready_made: the objects are service-ready inputs; each is a shard, where it is and as it is.
        watched: for `new_objects`, the ``index`` and ``service`` of the runs it starts: a run with these that takes all
            records notes which state of the source was prepared; a trial with others leaves it news.
        on_empty: ``skip`` returns no shards where there are no documents, ``fail`` fails.
        limit: how many records are taken, from the first object on; all if empty.
        max_records: records a shard.
        max_bytes: bytes a shard.
        opensearch_conn_id: the cluster.
        aws_conn_id: the object storage, and the connector's keys.
        ai_conn_id: the AI service's key, where that is not the AWS connection; its usual connection if None.

    Raises:
        AirflowFailException: something a person has to mend; nothing was paid.
        RetriableError: a server was away.
    """

    template_fields = (
        "source",
        "work",
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
    )
    operator_extra_links = (DeadLettersLink(),)
    ui_color = "#e8f0fe"

    def __init__(
        self,
        *,
        source: str,
        work: str,
        service: str,
        index: str,
        field_map: Mapping[str, Any],
        ingest_fields: Sequence[str] = (),
        processors: Sequence[Mapping[str, Any]] | None = None,
        model_id: str | None = None,
        stack: str | None = None,
        connector: Mapping[str, Any] | str | None = None,
        values: Mapping[str, str] | str | None = None,
        parameters: Mapping[str, Any] | str | None = None,
        inputs: Sequence[str] = (),
        dimension: int | None = None,
        index_body: Mapping[str, Any] | None = None,
        routing: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        source_format: Format | None = None,
        ready_made: bool = False,
        watched: Mapping[str, str] | None = None,
        on_empty: Literal["fail", "skip"] = "fail",
        limit: int | str | None = None,
        max_records: int = 10_000,
        max_bytes: int = 100_000_000,
        opensearch_conn_id: str = OPENSEARCH_CONN_ID,
        aws_conn_id: str = AWS_CONN_ID,
        ai_conn_id: str | None = None,
        **kwargs: Any,  # noqa: ANN401 - BaseOperator's own arguments
    ) -> None:
        super().__init__(**kwargs)
        self.source = source
        self.work = work
        self.service = service
        self.index = index
        self.field_map = field_map
        self.ingest_fields = ingest_fields
        self.processors = processors
        self.model_id = model_id
        self.stack = stack
        # Airflow stores templated fields: a credential that somebody left in a connector's file must not be there.
        self.connector = connector if isinstance(connector, str) else without_credential(connector)
        self.values = values
        self.parameters = parameters
        self.inputs = inputs
        self.dimension = dimension
        self.index_body = index_body
        self.routing = routing
        self.include = include
        self.exclude = exclude
        self.source_format = source_format
        self.ready_made = ready_made
        self.watched = watched
        self.on_empty = on_empty
        self.limit = limit
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - Airflow's context
        """Check, cut, account."""
        dry_run = bool(context["params"].get("dry_run"))
        with errors_end_the_task():
            work, store = work_of(self.work, context), object_storage(self.aws_conn_id)
            # Before the listing: whoever lists later sees at least what this run sees.
            listed_at = time.time()
            found = self._find(store, work)
            if found is None:
                return []
            is_own = self._is_own(dry_run=dry_run)
            if is_own:
                note_prepared(store, work, found, done=False)
            model = self._model(dry_run=dry_run)
            parameters = {**model.parameters, **chosen(self.parameters)}
            adapter = adapter_of(self.service)
            adapter.check(parameters, self.inputs)
            vectors = self._check_index(adapter, parameters, dry_run=dry_run)
            cut = self._cut(store, work, run_key_of(context), found, parameters, writes=not dry_run)
            manifest = msgspec.structs.replace(
                cut, model_id=model.id, vectors=vectors, run_version=self._run_version(listed_at)
            )
            if dry_run:
                self._tell_plan(Planned.of(store, work, manifest), context)
                return []
            refuse_many(len(manifest.shards), "the source", "shards", "shard.max_records of the pipeline")
            where = work.manifest(manifest.run_key)
            save(store, where, manifest)
            note_places(store, work, manifest, index=self.index)
            if is_own:
                note_prepared(store, work, found, done=True)
            if manifest.dead_letters:
                self.dead_letters_url = store.browse_url(manifest.dead_letters)
        context["ti"].xcom_push(key="run", value={"manifest": where, "model_id": model.id})
        self.log.info("%s in %d shards: %s; manifest %s", self.source, len(manifest.shards), manifest.counts, where)
        return [msgspec.to_builtins(prepared.shard) for prepared in manifest.shards]

    def _is_own(self, *, dry_run: bool) -> bool:
        """Say whether this run does what one that `new_objects` starts would do: else there still is news."""
        if self.watched is None or dry_run or self.limit:
            return False
        return (self.index, self.service) == (self.watched["index"], self.watched["service"])

    def _find(self, store: S3Objects, work: Layout) -> Listing | None:
        """Return the source's objects, None where there are none and that is no mistake."""
        try:
            return find_documents(store, work, self.source, include=self.include, exclude=self.exclude)
        except NoDocuments as error:
            if self.on_empty == "fail":
                raise
            self.log.info("%s", error)
            return None

    def _run_version(self, listed_at: float) -> RunVersion | None:
        """Return the run's age; None with a limit, as such a run knows nothing of the records behind it."""
        if self.limit:
            return None
        return RunVersion(listed_at, digest(self.source, *self.include, "", *self.exclude))

    def _tell_plan(self, planned: Planned, context: Any) -> None:  # noqa: ANN401 - Airflow's context
        for line in planned.lines():
            self.log.info("dry run: %s", line)
        context["ti"].xcom_push(key="plan", value=msgspec.to_builtins(planned))

    def _check_index(
        self, adapter: ServiceAdapter, parameters: Mapping[str, Any], *, dry_run: bool
    ) -> list[VectorField]:
        """Make sure that what the job will predict fits the index, which is created here if a body is given.

        Returns the mapped vector fields.
        """
        cluster = OpenSearchMLHook(self.opensearch_conn_id).cluster
        mapped = over_sources(self._request(), adapter, parameters, self.inputs)
        fields = written_fields(mapped)
        index = cluster.index(self.index)
        if index is None and self.index_body is not None:
            if dry_run:
                return [
                    vector for vector in vector_fields(self.index_body.get("mappings", {})) if vector.name in fields
                ]
            cluster.create_index(self.index, self.index_body)
            index = cluster.index(self.index)
        if index is None:
            raise ConfigError(f"OpenSearch {cluster.name}: no index {self.index!r}; create it, or give index_body")
        if mapped.processors is not None:
            from opensearch_batch.core.ingest.event_documents import refuse_plain_vectors

            refuse_plain_vectors(index, fields, "delete the index and give index_body, or name another")
        if self.dimension is not None:
            check_dimension(index, fields, self.dimension)
        return [vector for vector in index.vectors if vector.name in fields]

    def _request(self) -> IngestRequest:
        return IngestRequest(
            self.index,
            dict(self.field_map),
            list(self.ingest_fields),
            routing=self.routing,
            processors=None if self.processors is None else [dict(said) for said in self.processors],
        )

    def _model(self, *, dry_run: bool) -> Model:
        ml = OpenSearchMLHook(self.opensearch_conn_id).ml
        model_id = self.model_id or (self.stack and model_of_stack(cloudformation(self.aws_conn_id), self.stack))
        if model_id:
            return ml.model(model_id)
        connector = chosen(self.connector)
        if not connector:
            raise ConfigError("give model_id, a stack that made the model, or a connector to make it from")
        body = fill(connector, chosen(self.values), "connector")
        if dry_run:
            return Model("", dict(body.get("parameters", {})))
        return ml.ensure_model(str(body["name"]), {**body, "credential": self._credential()})

    def _credential(self) -> dict[str, str]:
        return ai_credential(self.service, self.ai_conn_id) or connector_credential(
            self.aws_conn_id, role_arn=chosen(self.values).get("role_arn")
        )

    def _cut(
        self,
        store: S3Objects,
        work: Layout,
        run_key: str,
        found: Listing,
        parameters: dict[str, Any],
        *,
        writes: bool,
    ) -> Manifest:
        """Cut the source; the manifest lacks model and vectors yet."""
        adapter, inputs = adapter_of(self.service), tuple(self.inputs)
        with DeadLetters(store, work.dead_letters(run_key, "prepare")) as dead:
            if self.ready_made:
                shards, counts = self._take_ready_made(store, found, adapter, parameters)
            else:
                shards, counts = Prepare(
                    store,
                    work,
                    limits=self._limits(adapter),
                    request_line=adapter.request_line(parameters, inputs),
                    form=adapter.line_form(parameters, inputs),
                    keeps_records=not holds_record(adapter, parameters),
                    job_key=job_keys(adapter, parameters, inputs),
                    dead=dead,
                    writes=writes,
                ).run(found, said=self.source_format, at_most=int(self.limit) if self.limit else None)
            return Manifest(
                work.pipeline,
                run_key,
                self.source,
                adapter.name,
                "",
                counts,
                shards,
                dead.location,
                parameters=parameters,
                inputs=inputs,
            )

    def _take_ready_made(
        self, store: S3Objects, found: Listing, adapter: ServiceAdapter, parameters: Mapping[str, Any]
    ) -> tuple[list[PreparedShard], PrepareCounts]:
        if self.limit:
            raise ConfigError("source.prepare is false: objects go as they are, so max_records cannot cut them")
        check_ready_made(adapter, parameters)
        job_key = job_keys(adapter, parameters, self.inputs)
        return take_ready_made(store, found, limits=self._limits(adapter), job_key=job_key)

    def _limits(self, adapter: ServiceAdapter) -> ShardLimits:
        return adapter.limits.of_shard(self.max_records, self.max_bytes, inputs=len(self.inputs))


def without_credential(connector: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a connector's body without what may be a secret."""
    return None if connector is None else {name: connector[name] for name in connector if name != "credential"}
