"""A connector is kept when its key changes; here ML Commons is a server that refuses as the real one does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import OpenSearch

from opensearch_batch.core.errors import ConfigError
from opensearch_batch.core.opensearch import ml_commons
from opensearch_batch.core.opensearch.cluster import Cluster
from opensearch_batch.core.opensearch.ml_commons import MLCommons
from tests.serving import Exchange, Server

# Requests from the registration of a model to the end of its deployment.
DEPLOYED_AFTER, STUCK = 6, "STUCK"
KEY, NEW_KEY = "sk-" + "a" * 40, "sk-" + "b" * 40
CONNECTOR = {
    "name": "OpenAI",
    "version": "1",
    "description": "ours",
    "protocol": "http",
    "actions": [],
    "parameters": {},
}


class Node:
    """The connectors and models of a node; a connector changes only while none of its models is deployed.

    The deployment of a new model takes a few requests; a model that is undeployed meanwhile is never undeployed again.
    """

    def __init__(self) -> None:
        self.connectors: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.busy_queries = 0
        self.server = Server(self._handle)

    @property
    def ml(self) -> MLCommons:
        """The node as a stage sees it."""
        return MLCommons(Cluster(OpenSearch(self.server.url, max_retries=0), "node"))

    def states(self) -> list[str]:
        """Return the states of the models."""
        return [model["model_state"] for model in self.models.values()]

    def _handle(self, request: Exchange) -> None:
        kind, _, rest = request.path.removeprefix("/_plugins/_ml/").partition("/")
        name, _, verb = rest.partition("?")[0].partition("/")
        stored: dict[str, dict[str, Any]] = getattr(self, kind)
        for model in self.models.values():
            model["requests"] += 1
            if model["model_state"] == "REGISTERED" and model["requests"] > DEPLOYED_AFTER:
                model["model_state"] = "DEPLOYED"
        body = json.loads(request.body() or b"{}")
        if name == "_search":
            hits = [
                {"_id": key, "_source": {k: v for k, v in it.items() if k != "credential"}}
                for key, it in stored.items()
            ]
            return request.reply(200, {"hits": {"hits": hits}})
        if name in {"_create", "_register"}:
            name = f"{kind}-{len(stored) + 1}"
            stored[name] = {**body, "model_state": "REGISTERED", "requests": 0}
            return request.reply(200, {"connector_id": name, "model_id": name})
        if verb:
            is_new = stored[name]["model_state"] == "REGISTERED"
            stored[name]["model_state"] = {"_deploy": "DEPLOYED", "_undeploy": STUCK if is_new else "UNDEPLOYED"}[verb]
        if request.command == "PUT":
            if self.busy_queries:
                self.busy_queries -= 1
                for model in self.models.values():
                    model["model_state"] = "DEPLOYED"
            if {"DEPLOYED", STUCK} & set(self.states()):
                reason = "1 models are still using this connector, please undeploy the models first"
                return request.reply(400, {"status": 400, "error": {"type": "status_exception", "reason": reason}})
            stored[name] |= body
        return request.reply(200, stored[name])


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node without connectors."""
    monkeypatch.setattr(ml_commons, "UPDATE_PAUSE_S", 0.0)
    monkeypatch.setattr(ml_commons, "DEPLOY_PAUSE_S", 0.0)
    made = Node()
    yield made
    made.server.close()


def ensure(node: Node, conn_id: str = "openai_default", **credential: str) -> str:
    """Return the model's id for a connector with this credential."""
    return node.ml.ensure_model("m", {**CONNECTOR, "credential": credential}, conn_id=conn_id).id


@pytest.mark.parametrize("busy_queries", [0, 3])
def test_a_changed_key_replaces_the_old_one_in_place(node: Node, busy_queries: int) -> None:
    """Model and connector stay, so the jobs of both can be polled; a query that deploys the model again is no end."""
    model_id = ensure(node, openAI_key=KEY)
    node.busy_queries = busy_queries
    assert ensure(node, openAI_key=NEW_KEY) == model_id
    (connector,) = node.connectors.values()
    assert (connector["credential"], node.states()) == ({"openAI_key": NEW_KEY}, ["DEPLOYED"])
    assert KEY not in json.dumps({**connector, "credential": None})


def predict(url: str, body: str = "{}") -> dict[str, Any]:
    """A connector whose predict action has this URL and body."""
    actions = [
        {"action_type": "PREDICT", "url": url, "request_body": body},
        {"action_type": "batch_predict", "url": "https://b"},
    ]
    return {**CONNECTOR, "actions": actions, "credential": {"openAI_key": KEY}}


@pytest.mark.parametrize(
    "before", [predict("https://p", "old"), {**predict(""), "actions": predict("")["actions"][1:]}]
)
def test_a_changed_predict_action_is_replaced_in_place(node: Node, before: dict[str, Any]) -> None:
    """Connectors of earlier versions have another one, or none; searches name the model, which stays."""
    model_id, after = node.ml.ensure_model("m", before).id, predict("https://p", "new")
    assert node.ml.ensure_model("m", after).id == model_id
    (connector,) = node.connectors.values()
    assert (connector["actions"], node.states()) == (after["actions"], ["DEPLOYED"])
    assert connector["credential"] == {"openAI_key": KEY}


def test_a_predict_action_of_another_url_is_another_connector(node: Node) -> None:
    """It may be another model; each pipeline finds its own again."""
    bodies = [predict("https://p"), predict("https://q")]
    models = [node.ml.ensure_model("m", body).id for body in bodies]
    assert len(set(models)) == 2
    assert [node.ml.ensure_model("m", body).id for body in bodies] == models


def test_temporary_keys_are_one_connector(node: Node) -> None:
    """Each run has other keys of the same connection."""
    runs = [{"access_key": f"ASIA{run}", "secret_key": f"s{run}", "session_token": f"t{run}"} for run in range(3)]
    assert len({ensure(node, "aws_default", **keys) for keys in runs}) == 1
    (connector,) = node.connectors.values()
    assert connector["credential"] == runs[-1]


def test_a_secret_that_changes_alone_is_replaced(node: Node) -> None:
    """AWS keys have an id and a secret; both are compared."""
    ensure(node, "aws_default", access_key="AKIA", secret_key="old")
    ensure(node, "aws_default", access_key="AKIA", secret_key="new")
    (connector,) = node.connectors.values()
    assert connector["credential"]["secret_key"] == "new"


def test_another_connection_has_a_connector_of_its_own(node: Node) -> None:
    """Else the runs of two accounts would take each other's key away, and pay with it."""
    assert ensure(node, openAI_key=KEY) != ensure(node, "other_account", openAI_key=NEW_KEY)
    # ML Commons merges credentials: a session token would stay beside a key that has none.
    assert ensure(node, "aws", access_key="a", secret_key="b") != ensure(
        node,
        "aws",
        access_key="a",
        secret_key="b",
        session_token="c",
    )
    assert len(node.connectors) == 4


def test_the_same_key_changes_nothing(node: Node) -> None:
    """The connector is not written, so no query meets a model that is undeployed."""
    model_id = ensure(node, openAI_key=KEY)
    before = dict(node.connectors["connectors-1"])
    assert (ensure(node, openAI_key=KEY), node.connectors) == (model_id, {"connectors-1": before})


@pytest.mark.slow
def test_models_are_deployed_again_after_an_update_that_fails(node: Node) -> None:
    """Whoever searches by the model finds it as it was."""
    ensure(node, openAI_key=KEY)
    node.busy_queries = 1000
    with pytest.raises(ConfigError, match="please undeploy the models first"):
        ensure(node, openAI_key=NEW_KEY)
    assert node.states() == ["DEPLOYED"]


def test_a_connector_with_a_similar_id_prevents_no_update(node: Node) -> None:
    """ML Commons counts its models, too: they are undeployed for a moment, unless they are not deployed."""
    for conn_id in ("a", "b", "c"):
        ensure(node, conn_id, openAI_key=KEY)
    ensure(node, "c", openAI_key=KEY)
    node.models["models-2"]["model_state"] = "UNDEPLOYED"
    ensure(node, "a", openAI_key=NEW_KEY)
    assert node.connectors["connectors-1"]["credential"] == {"openAI_key": NEW_KEY}
    assert node.connectors["connectors-3"]["credential"] == {"openAI_key": KEY}
    assert node.states() == ["DEPLOYED", "UNDEPLOYED", "DEPLOYED"]


def test_a_model_that_was_left_undeployed_is_deployed(node: Node) -> None:
    """A run that died between the two leaves it so."""
    model_id = ensure(node, openAI_key=KEY)
    node.models[model_id]["model_state"] = "UNDEPLOYED"
    assert (ensure(node, openAI_key=KEY), node.states()) == (model_id, ["DEPLOYED"])
