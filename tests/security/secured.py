"""A secured node, as its admin and its service users see it."""

from __future__ import annotations

import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import boto3

from include.local_stack.settings import LOOPBACK, REPOSITORY
from include.local_stack.stack import Stack
from opensearch_batch.core.errors import ConfigError, NotFound, RemoteError
from opensearch_batch.core.ingest.request import IngestRequest, OpType
from opensearch_batch.core.ingest.sinks.base import Item, WrittenBody
from opensearch_batch.core.ingest.sinks.bulk import BulkWriter
from opensearch_batch.core.ingest.sinks.bulk_lines import lines_of
from opensearch_batch.core.opensearch.client import Address, Tls, opensearch_client
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons, fill
from opensearch_batch.core.pipeline.bodies import packaged_body
from tests.waiting import WAIT_S

MODEL = "all-MiniLM-L6-v2"
DOCUMENT = REPOSITORY / "docs" / "reference" / "security.md"
INGEST_ROLE, ALL_STAGES_ROLE, SOURCE_ROLE, ML_MAPPING = map(
    json.loads, re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
)
BODY = {"mappings": {"properties": {"n": {"type": "integer"}}}}


class User(NamedTuple):
    """A service user."""

    name: str
    password: str


class Job(NamedTuple):
    """A model and a batch job of it, made by the admin."""

    model_id: str
    ml_task_id: str


class Secured:
    """A stack whose node has the Security plugin."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._admin = stack.node_session()

    def close(self) -> None:
        """Give the connections back."""
        self._admin.close()

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the node as its admin."""
        answer = self._admin.request(method, f"{self.stack.addresses.opensearch}/{path}", json=body, timeout=WAIT_S)
        answer.raise_for_status()
        return answer.json()

    def user(self, role: Mapping[str, Any], *, backend_roles: Sequence[str] = ()) -> User:
        """Make a new user that has one role."""
        made = User(f"service-{uuid.uuid4().hex[:8]}", secrets.token_urlsafe(18))
        self.give(made, role)
        account = {"password": made.password, "backend_roles": list(backend_roles)}
        self.admin("PUT", f"_plugins/_security/api/internalusers/{made.name}", account)
        self.admin("PUT", f"_plugins/_security/api/rolesmapping/{made.name}", {"users": [made.name]})
        return made

    def give(self, user: User, role: Mapping[str, Any]) -> User:
        """Let the user do what the role says, at once, and no more."""
        self.admin("PUT", f"_plugins/_security/api/roles/{user.name}", role)
        return user

    def cluster(self, user: User, *, ca_certs: str | None = "") -> Cluster:
        """The node as the stages see it; `ca_certs` is the stack's own authority unless it is given."""
        port = int(self.stack.addresses.opensearch.rpartition(":")[2])
        tls = Tls(self.stack.addresses.ca_certs if ca_certs == "" else ca_certs)
        client = opensearch_client(
            Address(LOOPBACK, port, use_ssl=True), user=user.name, password=user.password, tls=tls
        )
        return Cluster(client, f"opensearch_default ({LOOPBACK}:{port})")

    def connector(self) -> dict[str, Any]:
        """The body of a new SageMaker connector."""
        body = packaged_body("connector", "sagemaker")
        values = {"region": "us-east-1", "model_name": MODEL, "endpoint_name": MODEL}
        filled = fill({key: value for key, value in body.items() if key != "credential"}, values, "connector")
        keys = self.stack.credentials
        credential = {"access_key": keys.access_key, "secret_key": keys.secret_key}
        return {**filled, "name": f"connector {uuid.uuid4().hex}", "credential": credential}

    def create_sagemaker_model(self) -> None:
        """Create the model that all jobs use."""
        keys = self.stack.credentials
        sagemaker: Any = boto3.client(
            "sagemaker",
            endpoint_url=self.stack.addresses.ai_services,
            region_name="us-east-1",
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
        )
        sagemaker.create_model(ModelName=MODEL)
        sagemaker.close()


def without(role: Mapping[str, Any], permission: str) -> dict[str, Any]:
    """Return the role without one permission, on the cluster and on its indexes."""
    rest = json.loads(json.dumps(role))
    for allowed in (rest["cluster_permissions"], *(entry["allowed_actions"] for entry in rest["index_permissions"])):
        if permission in allowed:
            allowed.remove(permission)
    return dict(rest)


def permissions(role: Mapping[str, Any]) -> list[str]:
    """Return all permissions of a role."""
    on_indexes = [action for entry in role["index_permissions"] for action in entry["allowed_actions"]]
    return [*role["cluster_permissions"], *on_indexes]


def write(
    cluster: Cluster, index: str, documents: Mapping[str, bytes], *, op_type: OpType = "index", compress: bool = False
) -> Iterator[WrittenBody]:
    """Write documents by id: the one place here that knows the writer's interface."""
    items = [Item(name, lines_of(name, source, op_type=op_type)) for name, source in documents.items()]
    return BulkWriter(cluster, IngestRequest(index, {}, compress=compress)).write(items)


def refusals(steps: Iterable[Callable[[], object]]) -> str:
    """Make every call and return what was said against it."""
    complaints = []
    for step in steps:
        try:
            step()
        except (NotFound, RemoteError):
            # The node let the call pass: something is not there, or the AI service itself refused.
            continue
        except ConfigError as error:
            complaints.append(str(error))
    return "\n".join(complaints)


def submit(ml: MLCommons, model_id: str) -> str:
    """Submit a batch job whose input is not there, and return its task."""
    job = f"job-{uuid.uuid4().hex}"
    source = {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://nowhere/{job}/"}}}
    parameters = {
        "TransformJobName": job,
        "TransformInput": {"ContentType": "application/json", "SplitType": "Line", **source},
        "TransformOutput": {
            "AssembleWith": "Line",
            "Accept": "application/json",
            "S3OutputPath": f"s3://nowhere/{job}",
        },
    }
    return str(ml.batch_predict(model_id, parameters).ml_task_id)
