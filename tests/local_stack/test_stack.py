"""`up` twice is harmless, `down` leaves nothing running, and every refusal says what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import boto3
import msgspec
import pytest

from include.local_stack import __main__ as command_line
from include.local_stack import machines, prerequisites, processes, stack
from include.local_stack.airflow import connections, read_secrets
from include.local_stack.settings import StackError, StackOptions, choose_ports
from include.local_stack.stack import Stack, addresses_of
from include.local_stack.state import Credentials, StackState, StateFile
from tests.stored import present

KEYS = Credentials("access", "secret")


@pytest.fixture
def options(tmp_path: Path) -> Iterator[StackOptions]:
    """A stack of S3 alone: a real process that starts fast."""
    options = StackOptions(home=tmp_path, services=frozenset({"s3"}), free_ports=True)
    yield options
    stack.down(tmp_path, say=lambda _: None)


def test_s3_comes_up_once_and_goes_down_whole(options: StackOptions) -> None:
    """The second `up` keeps process and port; `down` ends it and removes its state, and says so only once."""
    said: list[str] = []
    first = Stack.up(options, say=said.append)
    second = Stack.up(options, say=said.append)
    assert first == second == Stack.running(options.home)
    assert any(line.startswith("s3") and "runs already" in line for line in said)
    _write_an_object(first)
    state = present(StateFile(options.home).read())
    first.down(say=said.append)
    assert not any(processes.is_alive(process) for process in state.processes.values())
    assert not stack.down(options.home, say=said.append)
    assert not (options.home / "stack.json").exists()


def test_a_stack_that_died_is_forgotten(options: StackOptions) -> None:
    """After a crash of everything, `up` starts from nothing and says that the old state is gone."""
    said: list[str] = []
    Stack.up(options, say=said.append)
    state = present(StateFile(options.home).read())
    for process in state.processes.values():
        processes.stop(process)
    Stack.up(options, say=said.append)
    assert any("ended without `make down`" in line for line in said)


def test_a_running_stack_keeps_version_and_ports(options: StackOptions) -> None:
    """Another port for a stack that is up is refused with a remedy; a version is free until a node runs."""
    Stack.up(options, say=lambda _: None)
    moved = StackOptions(home=options.home, services=options.services, ports={"s3": 1})
    with pytest.raises(StackError, match=r"S3_PORT is 1\. Run `make down` first"):
        Stack.up(moved, say=lambda _: None)


def test_another_version_is_refused_while_a_node_is_recorded(options: StackOptions) -> None:
    """Data of one version is never opened by another."""
    Stack.up(options, say=lambda _: None)
    file = StateFile(options.home)
    state = present(file.read())
    file.record("opensearch", state.processes["s3"])
    other = StackOptions(home=options.home, services=frozenset({"s3"}), opensearch_version="3.6.0")
    with pytest.raises(StackError, match=r"VERSION=2\.19\.1, but OPENSEARCH_VERSION is 3\.6\.0\. .* `make down`"):
        Stack.up(other, say=lambda _: None)


def test_a_taken_port_stops_everything_before_it_starts(tmp_path: Path) -> None:
    """Nothing runs and nothing is recorded after the refusal."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        options = StackOptions(home=tmp_path, services=frozenset({"s3"}), ports={"s3": taken}, free_ports=True)
        with pytest.raises(StackError, match="PORTS=free"):
            Stack.up(options, say=lambda _: None)
    assert StateFile(tmp_path).read() is None


def test_addresses_name_only_what_runs(tmp_path: Path) -> None:
    """A service counts when all its processes run; the version stands beside a node only."""
    state = StackState("2.19.1", choose_ports(StackOptions(home=tmp_path)), str(tmp_path))
    assert addresses_of(state, ["s3", "ai_services"]) == stack.Addresses(s3="http://127.0.0.1:9000")
    node = addresses_of(state, ["egress", "opensearch"])
    assert (node.opensearch, node.opensearch_version) == ("http://127.0.0.1:9200", "2.19.1")
    three = msgspec.structs.replace(state, opensearch_nodes=3)
    assert not addresses_of(three, ["egress", "opensearch", "opensearch-2"]).opensearch
    cluster = addresses_of(three, ["egress", "opensearch", "opensearch-2", "opensearch-3"])
    assert cluster.opensearch_nodes == tuple(f"http://127.0.0.1:{port}" for port in (9200, 9202, 9203))


def test_another_executor_is_refused_while_airflow_is_recorded(options: StackOptions) -> None:
    """The metadata of one executor are not those of another; the remedy names both ways."""
    Stack.up(options, say=lambda _: None)
    file = StateFile(options.home)
    file.record("airflow-api-server", present(file.read()).processes["s3"])
    other = StackOptions(home=options.home, services=frozenset({"s3"}), executor="celery")
    with pytest.raises(StackError, match=r"EXECUTOR is celery\. Set EXECUTOR=local, or run `make down` first"):
        Stack.up(other, say=lambda _: None)


def test_a_copy_of_the_project_follows_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine gets what is new or changed; a file that is equal stays, because a process may read it."""
    repository, own = tmp_path / "repository", tmp_path / "own"
    monkeypatch.setattr(machines, "REPOSITORY", repository)
    for folder in (repository / "dags", repository / "plugins" / "__pycache__", own / "dags"):
        folder.mkdir(parents=True)
    (repository / "dags" / "a.py").write_text("a")
    (repository / "dags" / "b.py").write_text("b")
    (own / "dags" / "c.py").write_text("c")
    machine = machines.Machine("worker-1", tmp_path / "worker-1")
    machine.deploy(own)
    kept = (machine.project / "dags" / "a.py").stat().st_ino
    (repository / "dags" / "b.py").write_text("changed")
    machine.deploy(own)
    assert (machine.project / "dags" / "a.py").stat().st_ino == kept
    assert (machine.project / "dags" / "b.py").read_text() == "changed"
    assert (machine.own_dags / "c.py").read_text() == "c"
    assert not (machine.project / "plugins" / "__pycache__").exists()
    assert machine.home.is_dir()
    assert machine.temporary.is_dir()


def test_stack_json_holds_addresses_and_no_secret(options: StackOptions) -> None:
    """Any program may read it."""
    running = Stack.up(options, say=lambda _: None)
    assert json.loads((options.home / "stack.json").read_text()) == {"s3": running.addresses.s3}


def test_without_a_stack_the_remedy_is_named(tmp_path: Path) -> None:
    """`Stack.running` says how to start one."""
    with pytest.raises(StackError, match="Start it with `make up`"):
        Stack.running(tmp_path)


def test_connections_point_to_the_stack() -> None:
    """AWS clients of the DAGs reach local S3 and AI services with the stack's own keys."""
    ports = choose_ports(StackOptions())
    opensearch, aws, openai, cohere = connections(ports, KEYS)
    assert connections(ports, KEYS, nodes=3)[0]["host"] == "127.0.0.1:9200,127.0.0.1:9202,127.0.0.1:9203"
    assert [found["host"] for found in (openai, cohere)] == ["http://127.0.0.1:9400/v1", "http://127.0.0.1:9400"]
    assert (opensearch["port"], json.loads(opensearch["extra"])) == (9200, {"use_ssl": False})
    services = json.loads(aws["extra"])["service_config"]
    assert services["s3"]["endpoint_url"] == "http://127.0.0.1:9000"
    assert {services[name]["endpoint_url"] for name in ("sagemaker", "sagemaker-runtime")} == {"http://127.0.0.1:9400"}


def test_secrets_of_airflow_are_made_once_and_private(tmp_path: Path) -> None:
    """Keys and password survive a restart; only their owner reads them, and no repr shows them."""
    made = read_secrets(tmp_path)
    assert read_secrets(tmp_path) == made
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert made.admin_password not in repr(made)


@pytest.mark.parametrize(
    ("find", "packages"),
    [
        (prerequisites.missing_for_the_stack, "maven default-jre-headless"),
        (prerequisites.missing_for_celery, "maven default-jre-headless postgresql redis-server"),
        (prerequisites.missing_browser, "chromium fonts-inter"),
    ],
)
def test_missing_programs_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, find: prerequisites.Find, packages: str
) -> None:
    """Without java and mvn, or a browser, a person who is not root reads one line to copy."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(prerequisites, "JVM_FOLDER", tmp_path)
    monkeypatch.setattr(prerequisites, "POSTGRES_FOLDER", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said: list[str] = []
    assert not prerequisites.install(said.append, find)
    assert said[0].endswith(f"sudo apt-get install --yes --no-install-recommends {packages}")


def test_an_error_is_a_message_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line ends with 1 and one readable sentence."""
    monkeypatch.setenv("LOCAL_STACK_HOME", str(tmp_path))
    monkeypatch.setenv("PORTS", "some")
    assert command_line.main(["up"]) == 1
    assert capsys.readouterr().err == "PORTS=some: unknown. The only value is PORTS=free.\n"
    assert command_line.main(["down"]) == 0


def _write_an_object(running: Stack) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=running.addresses.s3,
        region_name="us-east-1",
        aws_access_key_id=running.credentials.access_key,
        aws_secret_access_key=running.credentials.secret_key,
    )
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="k", Body=b"1")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["k"]
