"""Starts and stops the local stack. Its S3 objects, index, jobs and Airflow database are removed together.

S3 is in memory only, so the index, the jobs and the task records would refer to objects that no longer exist. `down`
therefore removes all of this state. Downloads stay in the cache; logs and the key pair stay in the stack's home.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import requests

from include.local_stack import opensearch_home, opensearch_security, processes
from include.local_stack.airflow import ADMIN, read_secrets
from include.local_stack.airflow_api import AirflowAPI
from include.local_stack.machines import deploy_to_all
from include.local_stack.services import LISTENERS, Services, processes_of
from include.local_stack.settings import (
    NODE_COUNTS,
    REPOSITORY,
    Addresses,
    StackError,
    StackOptions,
    choose_ports,
    home_from_environment,
    node_names,
    options_from_environment,
    port_variable,
    refuse_taken,
)
from include.local_stack.state import (
    STACK_FILE,
    STATE_FILE,
    Credentials,
    StackState,
    StateFile,
    credentials_of,
    only_one_at_a_time,
)
from include.local_stack.supervisor import Say, Supervisor

__all__ = ["Addresses", "Stack", "StackError", "StackOptions"]

FOLDERS_OF_STATE = ("airflow", "ai_services")


def say_on_stdout(line: str) -> None:
    """Print one line without buffering."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Stack(msgspec.Struct, frozen=True):
    """A running stack."""

    home: Path
    addresses: Addresses
    credentials: Credentials

    @classmethod
    def up(cls, options: StackOptions | None = None, *, say: Say = say_on_stdout) -> Stack:
        """Start the processes that do not run yet; return when all are healthy. A repeated call changes nothing.

        Without options, environment variables set them (`LOCAL_STACK_HOME`, `OPENSEARCH_VERSION`, `PORTS`, ...).
        """
        options = options or options_from_environment(os.environ)
        # The second lock: stacks that share a cache must not fill it at the same time.
        with only_one_at_a_time(options.home, say), only_one_at_a_time(options.cache, say):
            file = StateFile(options.home)
            state = _initial_state(options, file, say)
            file.write(state)
            keys = credentials_of(options.home)
            supervisor = Supervisor(file, say)
            try:
                Services(options, state, keys, supervisor, say).start()
            finally:
                addresses = _write_addresses(options.home, file)
        return cls(options.home, addresses, keys)

    @classmethod
    def running(cls, home: Path | None = None) -> Stack:
        """Return the stack that `up` started in this home."""
        home = home or home_from_environment(os.environ)
        file = home / STACK_FILE
        if not file.exists():
            raise StackError(f"{file}: no stack runs in {home}. Start it with `make up`.")
        return cls(home, msgspec.json.decode(file.read_bytes(), type=Addresses), credentials_of(home))

    def down(self, *, say: Say = say_on_stdout) -> None:
        """Stop this stack and remove its state."""
        down(self.home, say=say)

    def deploy(self) -> None:
        """Copy pipelines and DAGs that were written since `up` to the machines of Airflow's workers and triggerers."""
        deploy_to_all(self.home / "airflow")

    def airflow_password(self) -> str:
        """Return the password of Airflow's user `admin`."""
        return read_secrets(self.home / "airflow").admin_password

    def node_session(self) -> requests.Session:
        """Return an HTTP session for the node; with security, it authenticates as admin and trusts the stack's CA."""
        session = requests.Session()
        # Loopback needs no proxy, and a CA bundle from the environment would replace the stack's CA.
        session.trust_env = False
        if self.addresses.ca_certs:
            session.auth = (opensearch_security.ADMIN, self.credentials.opensearch_admin_password)
            session.verify = self.addresses.ca_certs
        return session

    def airflow_api(self) -> AirflowAPI:
        """Return a client for Airflow's REST API, authenticated as admin."""
        folders = (REPOSITORY / "dags", self.home / "airflow" / "dags")
        return AirflowAPI(self.addresses.airflow, ADMIN, self.airflow_password(), dag_folders=folders)


def down(home: Path, *, say: Say = say_on_stdout) -> bool:
    """Stop all processes of a home and remove their state; return False if there is no stack."""
    if not (home / STATE_FILE).exists():
        say(f"no stack in {home}")
        return False
    with only_one_at_a_time(home, say):
        file = StateFile(home)
        state = file.read()
        stopped = Supervisor(file, say).stop_all()
        if state:
            _remove_state(home, state)
    say(f"stopped: {', '.join(stopped) or 'nothing ran'}; state removed, caches kept")
    return True


def status(home: Path, *, say: Say = say_on_stdout) -> bool:
    """Print the processes and their addresses; return whether every recorded process is alive."""
    state = StateFile(home).read()
    if state is None:
        say(f"no stack in {home}")
        return False
    alive = _alive(state)
    for name, process in sorted(state.processes.items()):
        tls = state.security and name == "opensearch"
        addresses = [f"{listener} {state.ports.url(listener, tls=tls)}" for listener in LISTENERS.get(name, ())]
        verdict = "runs" if name in alive else f"has ended, see {home / 'logs' / name}.log"
        say(f"{name:<22} {verdict}   pid {process.pid}   {'  '.join(addresses)}".rstrip())
    return len(alive) == len(state.processes)


def _initial_state(options: StackOptions, file: StateFile, say: Say) -> StackState:
    """Return the state to start with: ports and version of the running stack, else those of the options.

    The state of a stack that is no longer running is removed.
    """
    recorded = file.read()
    if recorded and not _alive(recorded):
        if recorded.processes:
            say("the previous stack ended without `make down`; its state is removed")
        Supervisor(file, say).stop_all()
        _remove_state(options.home, recorded)
        recorded = None
    if recorded is None:
        ports = choose_ports(options)
        refuse_taken(ports, _listeners(options, running=()))
        return StackState(
            opensearch_version=options.opensearch_version,
            ports=ports,
            servers_folder=str(opensearch_home.servers_folder(options.home)),
            security=options.security,
            executor=options.executor,
            opensearch_nodes=options.opensearch_nodes,
        )
    _refuse_changes(options, recorded)
    refuse_taken(recorded.ports, _listeners(options, running=_alive(recorded)))
    return msgspec.structs.replace(
        recorded,
        opensearch_version=options.opensearch_version,
        security=options.security,
        executor=options.executor,
        opensearch_nodes=options.opensearch_nodes,
    )


def _refuse_changes(options: StackOptions, recorded: StackState) -> None:
    settings = {
        "OPENSEARCH_VERSION": ("opensearch", recorded.opensearch_version, options.opensearch_version),
        "OPENSEARCH_NODES": ("opensearch", str(recorded.opensearch_nodes), str(options.opensearch_nodes)),
        "SECURITY": ("opensearch", _on_or_off(recorded.security), _on_or_off(options.security)),
        "EXECUTOR": ("airflow-api-server", recorded.executor, options.executor),
    }
    for variable, (process, used, requested) in settings.items():
        if process in recorded.processes and used != requested:
            raise StackError(
                f"{options.home}: this stack runs with {variable}={used}, but {variable} is {requested}. Set "
                f"{variable}={used}, or run `make down` first: this removes the index, jobs and objects."
            )
    for name, port in options.ports.items():
        if (used := getattr(recorded.ports, name)) != port:
            raise StackError(
                f"{options.home}: this stack uses port {used} for {name}, but {port_variable(name)} is {port}. "
                f"Run `make down` first, or unset {port_variable(name)}."
            )


def _on_or_off(security: bool) -> str:  # noqa: FBT001 - the word for one value
    return "on" if security else "off"


def _listeners(options: StackOptions, *, running: Iterable[str]) -> list[str]:
    """Return the names of the ports that must be free before the services of these options start."""
    of_service = processes_of(options)
    to_start = {process for service in options.services for process in of_service[service]} - set(running)
    return [listener for process in to_start for listener in LISTENERS.get(process, ())]


def _alive(state: StackState) -> list[str]:
    return [name for name, process in state.processes.items() if processes.is_alive(process)]


def _write_addresses(home: Path, file: StateFile) -> Addresses:
    """Write `stack.json` for programs that only need the addresses; return the addresses."""
    state = file.read()
    ca_certs = opensearch_security.authority_file(home) if state and state.security else None
    addresses = Addresses()
    if state:
        addresses = addresses_of(state, _alive(state), ca_certs=ca_certs)
    (home / STACK_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(addresses)))
    return addresses


def addresses_of(state: StackState, running: Iterable[str], *, ca_certs: Path | None = None) -> Addresses:
    """Return the addresses of the services whose processes all run; `ca_certs` is set if the node has TLS."""
    served = [service for service, names in processes_of(state).items() if set(names) <= set(running)]
    has_node = "opensearch" in served
    names = node_names(state.opensearch_nodes) if has_node and state.opensearch_nodes > 1 else ()
    return Addresses(
        **{name: state.ports.url(name, tls=name == "opensearch" and ca_certs is not None) for name in served},
        opensearch_nodes=tuple(state.ports.url(name.replace("-", "_")) for name in names),
        opensearch_version=state.opensearch_version if has_node else "",
        ca_certs=str(ca_certs) if has_node and ca_certs else "",
    )


def _remove_state(home: Path, state: StackState) -> None:
    for name in (*node_names(max(NODE_COUNTS)), "postgres", "redis"):
        opensearch_home.remove(Path(state.servers_folder) / name)
    for folder in FOLDERS_OF_STATE:
        shutil.rmtree(home / folder, ignore_errors=True)
    for file in (STACK_FILE, STATE_FILE):
        (home / file).unlink(missing_ok=True)
