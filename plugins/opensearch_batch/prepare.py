"""prepare: documents below a prefix -> service-ready shards; and every check that can be made before money is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from airflow.sdk import BaseOperator

from opensearch_batch.core.cloudformation import model_of_stack
from opensearch_batch.core.cluster import check_dimension
from opensearch_batch.core.dead_letters import DeadLetters
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.manifest import Manifest, WorkPrefix, save
from opensearch_batch.core.ml_commons import Model, fill
from opensearch_batch.core.prediction_map import holds_record, over_sources
from opensearch_batch.core.prepare import Prepare, ShardLimits
from opensearch_batch.core.request import IngestRequest, compile_map
from opensearch_batch.core.s3 import S3Objects
from opensearch_batch.core.vectors import VectorField
from opensearch_batch.hooks import AWS_CONN_ID, OPENSEARCH_CONN_ID, OpenSearchMLHook, connector_credential, objects
from opensearch_batch.providers import ai_credential, cloudformation
from opensearch_batch.services import service
from opensearch_batch.services.base import Service, job_keys
from opensearch_batch.stage import errors_end_the_task, run_key_of, work_of


class OpenSearchPrepareOperator(BaseOperator):
    """Check model and index, cut the source into shards, write the manifest.

    Returns a list of shards, each ``{id, input, job, records, bytes}``, to map the next stages over, and pushes the
    XCom ``run``: ``{manifest, model_id}``.

    Args:
        source: S3 prefix or object of JSON Lines, plain or ``.gz``.
        work: S3 prefix for everything this pipeline writes.
        service: the AI service, such as ``sagemaker``.
        index: the index that ingest will write.
        field_map: what ingest will map; checked against the index here, before anything is paid.
        ingest_fields: paths ingest keeps under their own last name.
        model_id: a model registered with ML Commons; or else
        stack: a CloudFormation stack whose outputs name the model; or else
        connector: the body of a connector, from which connector and model are made if missing. Its placeholders take
            `values`; its credential comes from the AWS connection, or is the role `values` names as ``role_arn``.
        values: what fills the connector's placeholders.
        parameters: override the connector's parameters in every job.
        inputs: the paths in a record that the model reads, one prediction each; the connector's own choice if none.
        dimension: length of the model's vectors.
        index_body: creates the index if it is absent.
        include: globs a source's name below the prefix must match one of.
        exclude: globs it must not match.
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
        "include",
        "exclude",
    )
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
        model_id: str | None = None,
        stack: str | None = None,
        connector: Mapping[str, Any] | None = None,
        values: Mapping[str, str] | None = None,
        parameters: Mapping[str, Any] | None = None,
        inputs: Sequence[str] = (),
        dimension: int | None = None,
        index_body: Mapping[str, Any] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
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
        self.model_id = model_id
        self.stack = stack
        self.connector = connector
        self.values = values or {}
        self.parameters = parameters or {}
        self.inputs = inputs
        self.dimension = dimension
        self.index_body = index_body
        self.include = include
        self.exclude = exclude
        self.max_records = max_records
        self.max_bytes = max_bytes
        self.opensearch_conn_id = opensearch_conn_id
        self.aws_conn_id = aws_conn_id
        self.ai_conn_id = ai_conn_id

    def execute(self, context: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - Airflow's context
        """Check, cut, account."""
        with errors_end_the_task():
            run_key, work, store = run_key_of(context), work_of(self.work, context), objects(self.aws_conn_id)
            model = self._model()
            parameters = {**model.parameters, **self.parameters}
            adapter = service(self.service)
            adapter.check(parameters, self.inputs)
            vectors = self._check_index(adapter, parameters)
            manifest = self._prepare(store, work, run_key, model, parameters)
            manifest = msgspec.structs.replace(manifest, vectors=vectors)
            where = work.manifest(run_key)
            save(store, where, manifest)
        context["ti"].xcom_push(key="run", value={"manifest": where, "model_id": model.id})
        self.log.info("%s in %d shards: %s; manifest %s", self.source, len(manifest.shards), manifest.counts, where)
        return [msgspec.to_builtins(prepared.shard) for prepared in manifest.shards]

    def _check_index(self, adapter: Service, parameters: Mapping[str, Any]) -> list[VectorField]:
        """Make sure that what the job will predict fits the index, which is created here if a body is given.

        Returns the mapped vector fields.
        """
        cluster = OpenSearchMLHook(self.opensearch_conn_id).cluster
        request = IngestRequest(self.index, dict(self.field_map), list(self.ingest_fields))
        mapped = over_sources(request, adapter, parameters, self.inputs)
        fields = compile_map(mapped, sources=2 if mapped.joined_by else 1).fields
        if cluster.index(self.index) is None and self.index_body is not None:
            cluster.create_index(self.index, self.index_body)
        index = cluster.index(self.index)
        if index is None:
            raise ConfigError(f"OpenSearch {cluster.name}: no index {self.index!r}; create it, or give index_body")
        if self.dimension is not None:
            check_dimension(index, fields, self.dimension)
        return [vector for vector in index.vectors if vector.name in fields]

    def _model(self) -> Model:
        ml = OpenSearchMLHook(self.opensearch_conn_id).ml
        model_id = self.model_id or (self.stack and model_of_stack(cloudformation(self.aws_conn_id), self.stack))
        if model_id:
            return ml.model(model_id)
        if self.connector is None:
            raise ConfigError("give model_id, a stack that made the model, or a connector to make it from")
        credential = self._credential()
        body = fill({k: v for k, v in self.connector.items() if k != "credential"}, self.values, "connector")
        return ml.ensure_model(str(body["name"]), {**body, "credential": credential})

    def _credential(self) -> dict[str, str]:
        return ai_credential(self.service, self.ai_conn_id) or connector_credential(
            self.aws_conn_id, role_arn=self.values.get("role_arn")
        )

    def _prepare(
        self, store: S3Objects, work: WorkPrefix, run_key: str, model: Model, parameters: dict[str, Any]
    ) -> Manifest:
        adapter, inputs = service(self.service), tuple(self.inputs)
        with DeadLetters(store, work.dead_letters(run_key, "prepare")) as dead:
            shards, counts = Prepare(
                store,
                work,
                limits=self._limits(adapter),
                request_line=adapter.request_line(parameters, inputs),
                keeps_records=not holds_record(adapter, parameters),
                job_key=job_keys(adapter, parameters, inputs),
                dead=dead,
            ).run(self.source, include=self.include, exclude=self.exclude)
            return Manifest(
                work.pipeline,
                run_key,
                self.source,
                adapter.name,
                model.id,
                counts,
                shards,
                dead.location,
                parameters=parameters,
                inputs=inputs,
            )

    def _limits(self, adapter: Service) -> ShardLimits:
        of = adapter.limits
        # The last shard takes in what would be too few for a job of its own.
        room = of.min_records - 1
        return ShardLimits(
            min(self.max_records, of.records_at_most(len(self.inputs)) - room),
            min(self.max_bytes, of.max_bytes - room * min(of.max_record_bytes, of.max_bytes // (10 * of.min_records))),
            of.max_record_bytes,
            of.min_records,
        )
