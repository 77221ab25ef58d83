"""What a person may ask of a stack, and what it answers when it cannot be done."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local_stack.settings import (
    DEFAULT_PORTS,
    StackError,
    StackOptions,
    choose_ports,
    is_free,
    options_from_environment,
    refuse_taken,
)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port on which a stranger listens."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        yield stranger.getsockname()[1]


def test_without_variables_the_defaults_hold() -> None:
    """An empty environment means OpenSearch 2.19.1, all services, and the documented ports."""
    options = options_from_environment({})
    assert options.opensearch_version == "2.19.1"
    assert options.services == {"opensearch", "s3", "ai_services", "airflow"}
    assert (options.executor, options.opensearch_nodes, options.heap) == ("local", 1, "1g")
    assert {name: getattr(choose_ports(options), name) for name in DEFAULT_PORTS} == DEFAULT_PORTS


def test_each_port_has_a_variable() -> None:
    """A port variable replaces one default and leaves the others."""
    ports = choose_ports(options_from_environment({"AI_SERVICES_PORT": "19400"}))
    assert (ports.ai_services, ports.s3) == (19400, DEFAULT_PORTS["s3"])
    assert ports.url("ai_services") == "http://127.0.0.1:19400"


def test_free_ports_are_distinct_and_respect_a_wish() -> None:
    """PORTS=free picks every port but the one somebody asked for."""
    ports = choose_ports(options_from_environment({"PORTS": "free", "S3_PORT": "19000"}))
    chosen = [getattr(ports, name) for name in DEFAULT_PORTS]
    assert ports.s3 == 19000
    assert len(set(chosen)) == len(DEFAULT_PORTS)


def test_a_taken_port_is_named_with_its_variable(taken_port: int) -> None:
    """The message says which port, which variable moves it, and that PORTS=free exists."""
    ports = choose_ports(StackOptions(ports={"s3": taken_port}, free_ports=True))
    with pytest.raises(StackError, match=rf"s3: port {taken_port} .* Set S3_PORT .* PORTS=free"):
        refuse_taken(ports, ["s3"])
    assert not is_free(taken_port)


def test_ports_of_services_that_do_not_start_may_be_taken(taken_port: int) -> None:
    """Only what is about to start needs its port."""
    refuse_taken(choose_ports(StackOptions(ports={"airflow": taken_port}, free_ports=True)), ["s3"])


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"S3_PORT": "many"}, "S3_PORT=many: not a port"),
        ({"S3_PORT": "70000"}, "from 1 to 65535"),
        ({"PORTS": "any"}, "The only value is PORTS=free"),
        ({"OPENSEARCH_VERSION": "1.3.0"}, "Use 2.19.1 or 3.6.0"),
        ({"OPENSEARCH_NODES": "2"}, "OPENSEARCH_NODES=2: not assembled here. Use 1 or 3"),
        ({"OPENSEARCH_NODES": "3", "SECURITY": "on"}, "Use OPENSEARCH_NODES=1, or SECURITY=off"),
        ({"EXECUTOR": "kubernetes"}, "Use EXECUTOR=local or EXECUTOR=celery"),
    ],
)
def test_a_wrong_variable_is_an_error_with_a_remedy(environ: dict[str, str], message: str) -> None:
    """Nothing is guessed from a value that cannot be meant."""
    with pytest.raises(StackError, match=message):
        options_from_environment(environ)


def test_one_port_for_two_listeners_is_refused() -> None:
    """Two services on one port cannot both start; the message names both variables."""
    with pytest.raises(StackError, match=r"AIRFLOW_PORT and S3_PORT both are 9500"):
        choose_ports(StackOptions(ports={"s3": 9500, "airflow": 9500}))


def test_an_unknown_service_is_refused() -> None:
    """The message lists the services there are."""
    with pytest.raises(StackError, match=r"kafka: no such service\. Choose from opensearch,s3"):
        StackOptions(services=frozenset({"kafka"}))


def test_home_and_cache_follow_their_variables(tmp_path: Path) -> None:
    """Both may lie anywhere; relative paths are fixed at once, since processes start elsewhere."""
    options = options_from_environment({"LOCAL_STACK_HOME": str(tmp_path), "LOCAL_STACK_CACHE": "near"})
    assert options.home == tmp_path
    assert options.cache.is_absolute()
