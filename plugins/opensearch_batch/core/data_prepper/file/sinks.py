"""Options of all sinks, and of the opensearch sink.

Source: Data Prepper's SinkModel, OpenSearchSinkConfig, ConnectionConfiguration and IndexConfiguration (2.17).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, get_args

import msgspec
from msgspec import Meta

from opensearch_batch.core.config.annotations import not_one_of
from opensearch_batch.core.config.option_types import CheckedOptions, Rule, Secret, ValueCheck, refuse
from opensearch_batch.core.config.options import Options
from opensearch_batch.core.config.yaml_file import Keys
from opensearch_batch.core.data_prepper.options.aws import Dlq, ExternalId, OpenSearchAws, Region, RoleArn
from opensearch_batch.core.data_prepper.options.expressions import Condition, EventKey
from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.ingest.request import Action, check_index_name
from opensearch_batch.core.opensearch.client import address_of
from opensearch_batch.core.transform.events.date_pattern import check_date_placeholders
from opensearch_batch.core.transform.expressions.format_string import compile_format

IndexType = Literal[
    "custom",
    "management_disabled",
    "trace-analytics-raw",
    "trace-analytics-plain-raw",
    "trace-analytics-service-map",
    "otel-v2-apm-service-map",
    "log-analytics",
    "log-analytics-plain",
    "metric-analytics",
    "metric-analytics-plain",
    "tsdb",
]
ACTIONS = get_args(Action)
MIB = 1 << 20
NO_FORWARD = {"forward_to": "pipelines do not receive rows from sinks; add an s3 sink and read its objects"}
_BY_CONNECTION = "name an Airflow connection in extension.opensearch_batch.connections.opensearch instead"
_DEPRECATED = ("aws_sigv4", "aws_sts_role_arn", "aws_sts_external_id", "serverless")


class SinkOptions(CheckedOptions, frozen=True, kw_only=True):
    """Options of every sink: its routes (a sink without routes receives all events), and the keys that it writes."""

    REFUSED: ClassVar[Mapping[str, str]] = NO_FORWARD

    routes: tuple[str, ...] = ()
    include_keys: tuple[str, ...] = ()
    exclude_keys: tuple[str, ...] = ()
    tags_target_key: EventKey | None = None

    def rules(self) -> Iterator[Rule]:
        if self.include_keys and self.exclude_keys:
            yield ("exclude_keys",), "cannot be combined with include_keys; keep one of them"
        for name in ("include_keys", "exclude_keys"):
            for number, key in enumerate(getattr(self, name)):
                if "/" in key:
                    yield (name, number), f"{key!r} contains a /; only top-level keys are supported"


def _action(text: str) -> str:
    return text if "${" in text else text.lower()


def _check_action(text: str) -> None:
    if "${" in text:
        compile_format(text)
    elif _action(text) not in ACTIONS:
        refuse(not_one_of(_action(text), ACTIONS))


ActionText = Annotated[str, Meta(min_length=1), ValueCheck(_check_action)]


class SinkAction(Options, frozen=True, kw_only=True):
    """An action and its condition."""

    type: Annotated[ActionText, Meta(examples=["index"])]
    when: Condition | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "type", _action(self.type))


class Authentication(Options, frozen=True, kw_only=True):
    """User name and password for requests that are not signed."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "client_certificate": f"client certificates are not supported; {_BY_CONNECTION}",
        "client_key": f"client certificates are not supported; {_BY_CONNECTION}",
        "api_token": f"tokens are not supported; {_BY_CONNECTION}",
    }

    username: Secret | None = None
    password: Secret | None = None


def _check_template(text: str) -> None:
    try:
        template = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}") from None
    if not isinstance(template, dict):
        raise ConfigError('not a JSON object; write {"mappings": {...}}')


class OpenSearchSink(SinkOptions, frozen=True, kw_only=True):
    """Options of the opensearch sink. Values of deprecated options are moved to the options that replace them."""

    NO_EFFECT: ClassVar[Mapping[str, str]] = {
        "flush_timeout": "a bulk request is sent when it is full, and at the end of the rows",
        "estimate_bulk_size_using_compression": "the size of a request is exact, not estimated",
        "max_local_compressions_for_estimation": "the size of a request is exact, not estimated",
        "socket_timeout": "timeouts are fixed, and failed requests are retried",
        "connect_timeout": "timeouts are fixed, and failed requests are retried",
        "enable_request_compression": "requests are not compressed, because that takes longer than it saves",
        "max_retries": "rejections by a busy cluster are retried, then Airflow retries the task; no row is dropped",
    }
    REFUSED: ClassVar[Mapping[str, str]] = {
        **NO_FORWARD,
        "proxy": f"proxies are not supported; {_BY_CONNECTION}",
        "script": "use an ingest pipeline of the index",
        "ism_policy_file": "create the policy with an ism_template that matches the index",
        "query_lookup": "documents are not looked up; set document_id, which prevents duplicates",
        "pull_indexing": "documents are written by bulk requests; remove it",
        "document_version": "external versions are not supported; set document_id and action: index",
        "document_version_type": "external versions are not supported; remove it",
        "dlq_file": "a local file is lost with its worker; write dlq: {s3: {bucket: my-bucket}}",
        "serverless_options": OpenSearchAws.REFUSED["serverless_options"],
        "api_token": f"tokens are not supported; {_BY_CONNECTION}",
        "aws_sts_header_overrides": OpenSearchAws.REFUSED["sts_header_overrides"],
    }

    hosts: Annotated[tuple[str, ...], Meta(min_length=1, examples=[["https://localhost:9200"]])]
    username: Secret | None = None
    password: Secret | None = None
    authentication: Authentication | None = None
    aws: OpenSearchAws | None = None
    cert: str | None = None
    insecure: bool = False
    path_prefix: str | None = None
    distribution_version: Literal["default", "es6"] = "default"
    index: Annotated[str, Meta(min_length=1, examples=["passages"])]
    index_type: IndexType | None = None
    template_type: Literal["v1", "index-template"] = "v1"
    template_file: str | None = None
    template_content: Annotated[str, ValueCheck(_check_template)] | None = None
    number_of_shards: Annotated[int, Meta(ge=0)] = 0
    number_of_replicas: Annotated[int, Meta(ge=0)] = 0
    bulk_size: int = 5
    document_id: str | None = None
    routing: str | None = None
    normalize_index: bool = False
    action: ActionText = "index"
    actions: tuple[SinkAction, ...] = ()
    document_root_key: Annotated[EventKey, Meta(min_length=1)] | None = None
    dlq: Dlq | None = None
    aws_sigv4: bool = False
    aws_region: Region | None = None
    aws_sts_role_arn: RoleArn | None = None
    aws_sts_external_id: ExternalId | None = None
    serverless: bool = False
    document_id_field: str | None = None
    routing_field: str | None = None

    @property
    def host(self) -> str:
        """The name of the cluster's first host."""
        return address_of(self.hosts[0]).host

    def __post_init__(self) -> None:
        normalized = {"action": _action(self.action), **self._replaced()}
        for name, value in normalized.items():
            msgspec.structs.force_setattr(self, name, value)
        if self.index_type is None:
            index_type = "management_disabled" if self.is_serverless else "custom"
            msgspec.structs.force_setattr(self, "index_type", index_type)
        if self.is_serverless:
            msgspec.structs.force_setattr(self, "template_type", "index-template")
        if self.dlq is not None:
            dlq = msgspec.structs.replace(self.dlq, region=self.dlq.region or "us-east-1")
            msgspec.structs.force_setattr(self, "dlq", dlq)

    @property
    def is_serverless(self) -> bool:
        """Whether the sink writes to a collection of Amazon OpenSearch Serverless."""
        return self.aws is not None and self.aws.serverless

    @property
    def sends_ids(self) -> bool:
        """Whether documents are sent with an id; without `document_id` a collection receives no id, as in Data Prepper.

        Source: DocumentIdResolver (2.17).
        """
        return self.document_id is not None or not self.is_serverless

    @property
    def credentials(self) -> Authentication:
        """The user name and password for requests that are not signed."""
        return self.authentication or Authentication(username=self.username, password=self.password)

    @property
    def bulk_bytes(self) -> int | None:
        """The maximum size of a bulk request in bytes, or None for no limit."""
        return None if self.bulk_size < 0 else self.bulk_size * MIB

    def rules(self) -> Iterator[Rule]:
        yield from super().rules()
        yield from self._refused_values()
        for number, host in enumerate(self.hosts):
            if "@" in host:
                yield ("hosts", number), "a host must not contain credentials; set username and password"
        if len(self.hosts) > 1 and all("://" in host for host in self.hosts):
            yield ("hosts",), lambda: address_of(*self.hosts)
        yield ("index",), self._check_index
        for name in ("document_id", "routing"):
            if (text := getattr(self, name)) is not None:
                yield (name,), lambda text=text: compile_format(text)  # type: ignore[misc] # binds the current value

    def remarks(self) -> Iterator[tuple[Keys, str]]:
        """Yield remarks on options that another option overrides."""
        no_effect = {
            "template_file": (self.template_content, "template_content overrides it"),
            "cert": (self.insecure or None, "insecure: true disables certificate checks"),
            "action": (self.actions or None, "actions override it") if self.action != "index" else (None, ""),
            "username": (self.aws, "aws is set, so requests are signed"),
            "password": (self.aws, "aws is set, so requests are signed"),
            "authentication": (self.aws, "aws is set, so requests are signed"),
        }
        for name, (overriding, why) in no_effect.items():
            if overriding is not None and getattr(self, name) is not None:
                yield (name,), f"has no effect: {why}"
        for name in ("aws_region", *_DEPRECATED[1:]):
            if self.aws is None and getattr(self, name):
                yield (name,), "has no effect without aws_sigv4: true"

    def _replaced(self) -> dict[str, object]:
        """Return the values of the options that replace deprecated ones; `rules` refuses a sink that sets both."""
        new: dict[str, object] = {}
        if self.aws is None and self.aws_sigv4:
            new["aws"] = OpenSearchAws(
                region=self.aws_region or "us-east-1",
                sts_role_arn=self.aws_sts_role_arn,
                sts_external_id=self.aws_sts_external_id,
                serverless=self.serverless,
            )
            new |= {"aws_sigv4": False, "aws_region": None, "serverless": False}
            new |= {"aws_sts_role_arn": None, "aws_sts_external_id": None}
        for name in ("document_id", "routing"):
            field = getattr(self, f"{name}_field")
            if field is not None and getattr(self, name) is None:
                new |= {name: f"${{{field.removeprefix('/')}}}", f"{name}_field": None}
        return new

    def _refused_values(self) -> Iterator[Rule]:
        for name in ("aws_region", *_DEPRECATED):
            if self.aws is not None and getattr(self, name):
                yield (name,), "deprecated, and cannot be combined with aws; remove it"
        for name in ("document_id", "routing"):
            if getattr(self, f"{name}_field") is not None:
                yield (f"{name}_field",), f"deprecated, and cannot be combined with {name}; remove it"
        if self.distribution_version == "es6":
            cause = "Elasticsearch 6 is not supported; remove it, and use an OpenSearch cluster"
            yield ("distribution_version",), cause
        if self.index_type not in ("custom", "management_disabled"):
            cause = "index types of traces, logs and metrics are not supported; write custom, or management_disabled"
            yield ("index_type",), f"{cause} if the index exists"
        if self.bulk_size == 0:
            yield ("bulk_size",), "0 allows no document; write a number of MiB, or -1 for no limit"
        if self.authentication is not None and (self.username or self.password) is not None:
            yield ("authentication",), "cannot be combined with username and password; keep one"

    def _check_index(self) -> None:
        compile_format(self.index)
        if len(check_date_placeholders(self.index)) > 1:
            refuse("an index name may contain one date, like %{yyyy.MM}; remove the others")
        if "${" not in self.index and "%{" not in self.index and not self.normalize_index:
            check_index_name(self.index)
