"""ML Commons: finds or creates connectors and models, and submits, reads and cancels batch jobs (tasks).

Sources: "Connecting to externally hosted models", "Batch predict" and "Tasks APIs" of the OpenSearch documentation;
responses as observed on 2.19.1 and 3.6.0.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from opensearch_batch.core.errors import BatchError, ConfigError, NotFound, RemoteError, RetriableError, did_you_mean
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.types.job import Accepted
from opensearch_batch.core.types.predict_response import PredictResponse

ML = "/_plugins/_ml"
SEARCH_SIZE = 100
_PLACEHOLDER = re.compile(r"<([\w-]+)>")
# The call waits for the AI service; ML Commons stops waiting after 30 s.
SUBMIT_TIMEOUT_S = 45.0
PREDICT_TIMEOUT_S = 35.0
LIVE_STATES = frozenset({"CREATED", "RUNNING"})
DEPLOYED_STATES = frozenset({"DEPLOYING", "DEPLOYED", "PARTIALLY_DEPLOYED"})
# A model that is registered with deploy=true passes through these states.
BEING_DEPLOYED_STATES = frozenset({"REGISTERING", "REGISTERED", "DEPLOYING"})
DEPLOY_ATTEMPTS, DEPLOY_PAUSE_S = 100, 0.1
COMPARED_MEMBERS = ("name", "version", "protocol", "parameters")
# An update is retried if a query, or the registration of the model, has deployed the model again in the meantime.
UPDATE_ATTEMPTS, UPDATE_PAUSE_S = 60, 2.0
HASH_MARK = " (key "
HASH_ROUNDS, HASH_BYTES = 100_000, 8


class Model(msgspec.Struct, frozen=True):
    """A remote model, and the parameters and actions of its connector."""

    id: str
    parameters: dict[str, Any]
    actions: list[dict[str, Any]] = []

    @property
    def region(self) -> str:
        """The region of the connector's AWS service, ``""`` if it has none."""
        return str(self.parameters.get("region") or "")


class MLCommons:
    """The ML Commons plugin of one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def model(self, model_id: str) -> Model:
        """Return a registered model; raise ConfigError if it does not exist or is not remote."""
        try:
            model = self._cluster.call("GET", f"{ML}/models/{model_id}")
        except NotFound as error:
            cause = f"no model {model_id!r}; register it, or correct model_id"
            raise ConfigError(f"OpenSearch {self._cluster.name}: {cause}") from error
        connector = model.get("connector")
        if connector is None and "connector_id" in model:
            connector = self._cluster.call("GET", f"{ML}/connectors/{model['connector_id']}")
        if connector is None:
            raise ConfigError(f"model {model_id!r} is not remote; batch jobs need a model with a connector")
        return Model(model_id, connector.get("parameters", {}), connector.get("actions", []))

    def ensure_model(self, name: str, connector: Mapping[str, Any], *, conn_id: str = "") -> Model:
        """Return the deployed model of a connector body; create connector and model if they are missing.

        A stored connector is reused if name, content and the connection of its credential (`conn_id`) are equal.
        ML Commons never returns the credential, so the description contains its hash. A changed credential is replaced
        in the stored connector; with a second connector, the tasks of running jobs would keep the old credential. A
        changed `predict` action of the same URL is replaced as well, so that searches keep their model.
        """
        body = {**connector, "description": _description(connector, conn_id)}
        connector_id = self._find_connector(body)
        if connector_id is None:
            connector_id = str(self._cluster.call("POST", f"{ML}/connectors/_create", body)["connector_id"])
        elif change := _change(self._cluster.call("GET", f"{ML}/connectors/{connector_id}"), body):
            self._update(connector_id, change)
        # A deployed model takes precedence: ML Commons may store several models of one name.
        models = [model for model in self._models(connector_id) if model["name"] == name]
        stored = min(models, key=lambda model: (model["model_state"] not in DEPLOYED_STATES, model["id"]), default=None)
        model_id = stored["id"] if stored else self._register(name, connector_id)
        if stored and stored["model_state"] not in DEPLOYED_STATES:
            self._deploy(model_id)
        return Model(model_id, dict(connector.get("parameters", {})), list(connector.get("actions", [])))

    def deployed_model(self, name: str) -> str:
        """Return the id of the newest deployed model of this name; raise ConfigError if there is none."""
        query = {"size": SEARCH_SIZE, "query": {"match_phrase": {"name": name}}}
        wanted = {"name": name, "model_state": "DEPLOYED"}
        hits = [hit for hit in self._search("models", query) if wanted.items() <= hit["_source"].items()]
        if not hits:
            raise ConfigError(f"OpenSearch {self._cluster.name}: no deployed model {name!r}; run the pipeline first")
        return str(max(hits, key=lambda hit: hit["_source"].get("created_time", 0))["_id"])

    def batch_predict(
        self, model_id: str, parameters: Mapping[str, Any], *, dlq: Mapping[str, Any] | None = None
    ) -> Accepted:
        """Submit a batch job; the AI service charges for this call. `dlq` is where ML Commons reports its failure.

        Raises:
            RemoteError: the AI service refuses the request, throttles, or fails.
            Throttled: ML Commons has too many batch jobs; nothing was submitted.
            RetriableError: the response was lost; the job may have been submitted.
        """
        path = f"{ML}/models/{model_id}/_batch_predict"
        body = {"parameters": parameters} | ({"dlq": dlq} if dlq else {})
        response = self._cluster.call("POST", path, body, timeout_s=SUBMIT_TIMEOUT_S)
        return Accepted(response["task_id"], response.get("remote_job") or {})

    def predict(self, model_id: str, parameters: Mapping[str, Any]) -> PredictResponse:
        """Send one real-time request to a model; the AI service charges for this call.

        Raises:
            RemoteError: the AI service refuses the request, throttles, or fails.
            Throttled: ML Commons throttles the model; nothing was sent.
            RetriableError: the response was lost; the request may have been paid for.
        """
        path = f"{ML}/models/{model_id}/_predict"
        return PredictResponse.of(
            self._cluster.call("POST", path, {"parameters": parameters}, timeout_s=PREDICT_TIMEOUT_S)
        )

    def task(self, ml_task_id: str) -> dict[str, Any]:
        """Return a task; for a batch job, ML Commons queries the AI service and puts the response into `remote_job`."""
        task: dict[str, Any] = self._cluster.call("GET", f"{ML}/tasks/{ml_task_id}")
        return task

    def answer(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """Send one request below ``/_plugins/_ml``; return status and body, as `Cluster.answer` does."""
        return self._cluster.answer(method, f"{ML}/{path}", body, timeout_s=SUBMIT_TIMEOUT_S)

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

        After an error, the task's state decides whether this succeeded: 3.6.0 returns 400 ("Unsupported response type")
        for SageMaker's empty response although the job is stopping. Only 2.17.0 has ``_cancel_batch``.
        """
        first_error: BatchError | None = None
        for route in ("_cancel", "_cancel_batch"):
            try:
                self._cluster.call("POST", f"{ML}/tasks/{ml_task_id}/{route}")
            except (ConfigError, RemoteError) as error:
                first_error = first_error or error
                if self.task(ml_task_id)["state"] not in LIVE_STATES:
                    return
            else:
                return
        if first_error is not None:
            raise first_error

    def _find_connector(self, body: Mapping[str, Any]) -> str | None:
        """Return the id of the stored connector that equals `body` but for the credential's values and `predict`.

        One with the same `predict` action takes precedence.
        """
        query = {"size": SEARCH_SIZE, "query": {"match_phrase": {"name": body["name"]}}}
        hits = [
            hit
            for hit in self._search("connectors", query)
            if _content(hit["_source"]) == _content(body)
            and _predict_url(hit["_source"]) in {None, _predict_url(body)}
            and _without_hash(hit["_source"].get("description")) == _without_hash(body["description"])
        ]
        candidates = ((_actions(hit["_source"]) != _actions(body), str(hit["_id"])) for hit in hits)
        return min(candidates, default=(False, None))[1]

    def _update(self, connector_id: str, change: Mapping[str, Any]) -> None:
        """Change members of a connector.

        ML Commons refuses the update while a model of the connector is deployed, so the models are undeployed first and
        deployed again afterwards. A model that is undeployed while it is being deployed stays in the node's memory, and
        then ML Commons refuses each update until the node restarts (seen on 3.6.0). So such a model is waited for.

        ML Commons finds the models by a search for words of the connector's id. Two ids of one node may share the part
        after a hyphen, and then deployed models of the other connector prevent the update, too (seen on 2.19.1).
        """
        deployed = set[str]()
        try:
            for attempt in range(1, UPDATE_ATTEMPTS + 1):
                # Searched at each attempt: a model that was registered just before may be missing from a search.
                for model in self._models_like(connector_id):
                    if model["model_state"] in BEING_DEPLOYED_STATES:
                        continue
                    if model["model_state"] in DEPLOYED_STATES:
                        deployed.add(model["id"])
                    elif model["connector_id"] != connector_id:
                        continue
                    self._cluster.call("POST", f"{ML}/models/{model['id']}/_undeploy")
                try:
                    self._cluster.call("PUT", f"{ML}/connectors/{connector_id}", change)
                except ConfigError as error:
                    if attempt == UPDATE_ATTEMPTS:
                        states = [f"{model['id']} {model['model_state']}" for model in self._models(connector_id)]
                        raise ConfigError(f"{error}; its models are {', '.join(states) or 'not found'}") from error
                    time.sleep(UPDATE_PAUSE_S * random.random())  # noqa: S311 - jitter, no secret
                else:
                    return
        finally:
            for model_id in deployed:
                self._deploy(model_id)

    def _models(self, connector_id: str) -> list[dict[str, str]]:
        """Return ``{id, name, model_state, connector_id}`` of a connector's models."""
        return [model for model in self._models_like(connector_id) if model["connector_id"] == connector_id]

    def _models_like(self, connector_id: str) -> list[dict[str, str]]:
        """Return the same of the models whose connector's id has a word of this id; ML Commons maps it as text."""
        query = {"size": SEARCH_SIZE, "query": {"match": {"connector_id": connector_id}}}
        names = ("name", "model_state", "connector_id")
        return [
            {"id": hit["_id"], **{name: hit["_source"].get(name, "") for name in names}}
            for hit in self._search("models", query)
        ]

    def _deploy(self, model_id: str) -> None:
        self._cluster.call("POST", f"{ML}/models/{model_id}/_deploy")

    def _register(self, name: str, connector_id: str) -> str:
        body = {"name": name, "function_name": "remote", "connector_id": connector_id}
        response = self._cluster.call("POST", f"{ML}/models/_register", body, params={"deploy": "true"})
        if "model_id" not in response:
            raise RetriableError(f"OpenSearch {self._cluster.name}: model {name!r} is still being registered")
        model_id = str(response["model_id"])
        for _ in range(DEPLOY_ATTEMPTS):
            model = self._cluster.call("GET", f"{ML}/models/{model_id}")
            if model.get("model_state") not in BEING_DEPLOYED_STATES:
                break
            time.sleep(DEPLOY_PAUSE_S)
        return model_id

    def _search(self, kind: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            hits: list[dict[str, Any]] = self._cluster.call("POST", f"{ML}/{kind}/_search", query)["hits"]["hits"]
        except NotFound:
            # The index does not exist until the first connector, model or task is stored.
            return []
        return hits


def fill(body: Mapping[str, Any], values: Mapping[str, str], location: str) -> dict[str, Any]:
    """Return a connector body with values for its placeholders (``<region>``); raise ConfigError if one is missing."""
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
    if missing := _PLACEHOLDER.search(value):
        given = f" (given: {', '.join(values)}).{did_you_mean(missing[1], values)}" if values else ""
        raise ConfigError(f"{location}: no value for {missing[0]}; add values: {{{missing[1]}: ...}}{given}")
    return value


def _content(connector: Mapping[str, Any]) -> object:
    """Return what identifies a connector, in a form to compare."""
    jobs = [action for action in _actions(connector) if action["action_type"] != "PREDICT"]
    return jobs, [_normalized(connector.get(key)) for key in COMPARED_MEMBERS]


def _actions(connector: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the actions of a connector in a form to compare."""
    normalized = _normalized(connector.get("actions") or [])
    return normalized if isinstance(normalized, list) else []


def _predict_url(connector: Mapping[str, Any]) -> str | None:
    """Return the URL of the `predict` action, None without one; another URL may be another model."""
    urls = (str(each.get("url")) for each in _actions(connector) if each["action_type"] == "PREDICT")
    return next(urls, None)


def _change(stored: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a stored connector to replace by those of `body`."""
    names = ["credential", "description"] if stored.get("description") != body["description"] else []
    names += ["actions"] if _actions(stored) != _actions(body) else []
    return {name: body[name] for name in names}


def _description(connector: Mapping[str, Any], conn_id: str) -> str:
    """Return a connector's description, followed by the connection, the member names and a hash of its credential.

    The member names distinguish connectors: an update would keep stored members that the new credential lacks, such as
    a session token.
    """
    credential = connector.get("credential", {})
    values = msgspec.json.encode(credential, order="deterministic")
    # A slow hash, because every user who may read connectors sees it, and a key may be short.
    hashed = hashlib.pbkdf2_hmac("sha256", values, str(connector["name"]).encode(), HASH_ROUNDS, HASH_BYTES).hex()
    connection = f"{conn_id}: " if conn_id else ""
    return f"{connector.get('description', '')} ({connection}{', '.join(sorted(credential))}){HASH_MARK}{hashed})"


def _without_hash(description: object) -> str:
    """Return a stored description without the hash of the credential; ``""`` if it has no hash."""
    return str(description or "").rpartition(HASH_MARK)[0]


def _normalized(value: object) -> object:
    """Normalize a value to compare it: ML Commons stores nested values as JSON, action types in capitals, no nulls."""
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
