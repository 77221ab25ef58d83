"""ML Commons: finds or creates connectors and models, and submits, reads and cancels batch jobs (tasks).

Sources: "Connecting to externally hosted models", "Batch predict" and "Tasks APIs" of the OpenSearch documentation;
responses as observed on 2.19.1 and 3.6.0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RemoteError, RetriableError, did_you_mean
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.types.job import Accepted

ML = "/_plugins/_ml"
SEARCH_SIZE = 100
_PLACEHOLDER = re.compile(r"<([\w-]+)>")
# The call waits for the AI service; ML Commons stops waiting after 30 s.
SUBMIT_TIMEOUT_S = 45.0
LIVE_STATES = frozenset({"CREATED", "RUNNING"})
COMPARED = ("name", "version", "protocol", "parameters", "actions", "description")


class Model(msgspec.Struct, frozen=True):
    """A remote model, and the parameters of its connector."""

    id: str
    parameters: dict[str, Any]


class MLCommons:
    """The ML Commons plugin of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def model(self, model_id: str) -> Model:
        """Return a registered model; raise ConfigError if it does not exist or is not remote."""
        try:
            found = self._cluster.call("GET", f"{ML}/models/{model_id}")
        except NotFound as error:
            cause = f"no model {model_id!r}; register it, or correct model_id"
            raise ConfigError(f"OpenSearch {self._cluster.name}: {cause}") from error
        connector = found.get("connector")
        if connector is None and "connector_id" in found:
            connector = self._cluster.call("GET", f"{ML}/connectors/{found['connector_id']}")
        if connector is None:
            raise ConfigError(f"model {model_id!r} is not remote; batch jobs need a model with a connector")
        return Model(model_id, connector.get("parameters", {}))

    def ensure_model(self, name: str, connector: Mapping[str, Any]) -> Model:
        """Return the deployed model of a connector body; create connector and model if they are missing.

        A stored connector is used if its name and content are equal. Its credential cannot be read back, so a hash of
        the access key id is part of the description: a changed key needs a new connector.
        """
        body = {**connector, "description": _description(connector)}
        connector_id = self._find_connector(body)
        if connector_id is None:
            connector_id = str(self._cluster.call("POST", f"{ML}/connectors/_create", body)["connector_id"])
        model_id = self._find_model(name, connector_id) or self._register(name, connector_id)
        return Model(model_id, dict(connector.get("parameters", {})))

    def deployed_model(self, name: str) -> str:
        """Return the id of the newest deployed model of this name; raise ConfigError if there is none."""
        query = {"size": SEARCH_SIZE, "query": {"match_phrase": {"name": name}}}
        wanted = {"name": name, "model_state": "DEPLOYED"}
        found = [hit for hit in self._search("models", query) if wanted.items() <= hit["_source"].items()]
        if not found:
            raise ConfigError(f"OpenSearch {self._cluster.name}: no deployed model {name!r}; run the pipeline first")
        return str(max(found, key=lambda hit: hit["_source"].get("created_time", 0))["_id"])

    def batch_predict(self, model_id: str, parameters: Mapping[str, Any]) -> Accepted:
        """Submit a batch job: the paid call.

        Raises:
            RemoteError: the service refuses the request, throttles, or fails.
            RetriableError: the response was lost. Throttled: ML Commons has too many batch jobs.
        """
        path = f"{ML}/models/{model_id}/_batch_predict"
        answer = self._cluster.call("POST", path, {"parameters": parameters}, timeout_s=SUBMIT_TIMEOUT_S)
        return Accepted(answer["task_id"], answer.get("remote_job") or {})

    def task(self, ml_task_id: str) -> dict[str, Any]:
        """Return a task; for a batch job ML Commons asks the AI service, whose response is in `remote_job`."""
        found: dict[str, Any] = self._cluster.call("GET", f"{ML}/tasks/{ml_task_id}")
        return found

    def task_url(self, ml_task_id: str) -> str:
        """Return the URL that shows a task in a browser, without credentials."""
        return f"{self._cluster.url}{ML}/tasks/{ml_task_id}"

    def tasks(self, model_id: str) -> Iterator[dict[str, Any]]:
        """Yield a model's batch jobs as stored by ML Commons, newest first, each with its `task_id`."""
        filters = [{"term": {"task_type": "BATCH_PREDICTION"}}, {"term": {"model_id": model_id}}]
        query: dict[str, Any] = {
            "size": SEARCH_SIZE,
            "query": {"bool": {"filter": filters}},
            "sort": [{"create_time": {"order": "desc"}}, {"_id": {"order": "desc"}}],
        }
        while hits := self._search("tasks", query):
            for hit in hits:
                yield {**hit["_source"], "task_id": hit["_id"]}
            query["search_after"] = hits[-1]["sort"]

    def cancel(self, ml_task_id: str) -> None:
        """Cancel a batch job at the service if it has not ended.

        The task's state decides whether this succeeded, not the response: 3.6.0 answers 400 ("Unsupported response
        type") to SageMaker's empty response although the job is stopping. Only 2.17.0 has ``_cancel_batch``.
        """
        refused: BatchError | None = None
        for route in ("_cancel", "_cancel_batch"):
            try:
                self._cluster.call("POST", f"{ML}/tasks/{ml_task_id}/{route}")
            except (ConfigError, RemoteError) as error:
                refused = refused or error
                if self.task(ml_task_id)["state"] not in LIVE_STATES:
                    return
            else:
                return
        if refused is not None:
            raise refused

    def _find_connector(self, body: Mapping[str, Any]) -> str | None:
        query = {"size": SEARCH_SIZE, "query": {"match_phrase": {"name": body["name"]}}}
        for hit in self._search("connectors", query):
            if all(_normalized(hit["_source"].get(key)) == _normalized(body.get(key)) for key in COMPARED):
                return str(hit["_id"])
        return None

    def _find_model(self, name: str, connector_id: str) -> str | None:
        # connector_id is mapped as text, so the search can return other connectors' models.
        query = {"size": SEARCH_SIZE, "query": {"match": {"connector_id": connector_id}}}
        wanted = {"name": name, "connector_id": connector_id, "model_state": "DEPLOYED"}
        found = [hit["_id"] for hit in self._search("models", query) if wanted.items() <= hit["_source"].items()]
        return str(min(found)) if found else None

    def _register(self, name: str, connector_id: str) -> str:
        body = {"name": name, "function_name": "remote", "connector_id": connector_id}
        answer = self._cluster.call("POST", f"{ML}/models/_register", body, params={"deploy": "true"})
        if "model_id" not in answer:
            raise RetriableError(f"OpenSearch {self._cluster.name}: model {name!r} is still being registered")
        return str(answer["model_id"])

    def _search(self, kind: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            hits: list[dict[str, Any]] = self._cluster.call("POST", f"{ML}/{kind}/_search", query)["hits"]["hits"]
        except NotFound:
            # The index does not exist until the first connector, model or task.
            return []
        return hits


def fill(body: Mapping[str, Any], values: Mapping[str, str], location: str) -> dict[str, Any]:
    """Return a connector body with values for its placeholders (``<region>``); raise ConfigError if one has none."""
    return {key: _fill(value, values, f"{location} {key}") for key, value in body.items()}


def _fill(value: Any, values: Mapping[str, str], location: str) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {key: _fill(item, values, f"{location}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values, f"{location}[{n}]") for n, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name, text in values.items():
        value = value.replace(f"<{name}>", text)
    if left := _PLACEHOLDER.search(value):
        given = f" (given: {', '.join(values)}).{did_you_mean(left[1], values)}" if values else ""
        raise ConfigError(f"{location}: no value for {left[0]}; add values: {{{left[1]}: ...}}{given}")
    return value


def _description(connector: Mapping[str, Any]) -> str:
    key_id = str(connector.get("credential", {}).get("access_key", ""))
    mark = f" (key {hashlib.sha256(key_id.encode()).hexdigest()[:8]})" if key_id else ""
    return f"{connector.get('description', '')}{mark}"


def _normalized(value: object) -> object:
    """Return a value to compare: ML Commons stores nested values as JSON text, action types in capitals, no nulls."""
    if isinstance(value, str):
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
        return value if isinstance(decoded, str) else _normalized(decoded)
    if isinstance(value, dict):
        return {
            key: str(item).upper() if key == "action_type" else _normalized(item)
            for key, item in value.items()
            if item is not None
        }
    return [_normalized(item) for item in value] if isinstance(value, list) else value
