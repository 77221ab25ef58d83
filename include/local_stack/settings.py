"""What a stack is asked to be. Every port, path and version is decided here, before anything starts."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

LOOPBACK = "127.0.0.1"
REPOSITORY = Path(__file__).resolve().parents[2]
VERSIONS = ("2.19.1", "3.6.0")
# The Security plugin is on Maven Central for these only.
SECURED_VERSIONS = ("2.19.1",)
SERVICES = ("opensearch", "s3", "ai_services", "airflow")
EXECUTORS = ("local", "celery")
# Three is the smallest number of which one can be lost: the others still elect a cluster manager.
NODE_COUNTS = (1, 3)
DEFAULT_PORTS = {
    "opensearch": 9200,
    "opensearch_transport": 9300,
    "opensearch_2": 9202,
    "opensearch_2_transport": 9302,
    "opensearch_3": 9203,
    "opensearch_3_transport": 9303,
    "s3": 9000,
    "ai_services": 9400,
    "egress": 9401,
    "airflow": 8080,
    # Beside the ports of the operating system's own services.
    "postgres": 5433,
    "redis": 6380,
}


class StackError(Exception):
    """The stack cannot do what was asked; the message names cause, place and remedy."""


class Ports(msgspec.Struct, frozen=True):
    """One port per listener; all are fixed before the first process starts, so that none waits for another."""

    opensearch: int
    opensearch_transport: int
    opensearch_2: int
    opensearch_2_transport: int
    opensearch_3: int
    opensearch_3_transport: int
    s3: int
    ai_services: int
    egress: int
    airflow: int
    postgres: int
    redis: int

    def url(self, service: str, *, tls: bool = False) -> str:
        """Where a service answers on loopback."""
        return f"{'https' if tls else 'http'}://{LOOPBACK}:{getattr(self, service)}"

    def of_node(self, name: str) -> tuple[int, int]:
        """The HTTP and the transport port of a node by the name of its process."""
        port = name.replace("-", "_")
        return getattr(self, port), getattr(self, f"{port}_transport")


def node_names(count: int) -> tuple[str, ...]:
    """The processes of a cluster of so many nodes."""
    return ("opensearch", *(f"opensearch-{number}" for number in range(2, count + 1)))


class Addresses(msgspec.Struct, frozen=True, omit_defaults=True):
    """The content of `stack.json`: only services that run are named, the others are empty here.

    `ca_certs` is the file to trust when the node is secured, else empty; `opensearch_nodes` are all nodes, if there are
    several, and `opensearch` the first.
    """

    opensearch: str = ""
    opensearch_nodes: tuple[str, ...] = ()
    s3: str = ""
    ai_services: str = ""
    airflow: str = ""
    opensearch_version: str = ""
    ca_certs: str = ""


class StackOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What to start and where.

    `ports` holds only the ports somebody asked for; `free_ports` picks the others from what the system has free
    instead of taking the defaults. `airflow_environment` overrides variables of Airflow's processes.
    """

    home: Path = REPOSITORY / ".local"
    cache: Path = REPOSITORY / ".cache"
    services: frozenset[str] = frozenset(SERVICES)
    opensearch_version: str = VERSIONS[0]
    opensearch_nodes: int = 1
    opensearch_heap: str = ""
    security: bool = False
    executor: str = EXECUTORS[0]
    ports: dict[str, int] = {}
    free_ports: bool = False
    airflow_environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what no stack can be."""
        if self.opensearch_version not in VERSIONS:
            raise StackError(
                f"OPENSEARCH_VERSION={self.opensearch_version}: not assembled here. Use {' or '.join(VERSIONS)}."
            )
        if self.security and self.opensearch_version not in SECURED_VERSIONS:
            raise StackError(
                f"SECURITY=on: the Security plugin for OpenSearch {self.opensearch_version} is not published. "
                f"Use OPENSEARCH_VERSION={' or '.join(SECURED_VERSIONS)}, or SECURITY=off."
            )
        if self.executor not in EXECUTORS:
            raise StackError(f"EXECUTOR={self.executor}: unknown. Use EXECUTOR={' or EXECUTOR='.join(EXECUTORS)}.")
        if self.security and self.opensearch_nodes > 1:
            raise StackError("SECURITY=on: the secured cluster has one node. Use OPENSEARCH_NODES=1, or SECURITY=off.")
        if unknown := sorted(self.services - set(SERVICES)):
            raise StackError(f"--services {','.join(unknown)}: no such service. Choose from {','.join(SERVICES)}.")

    @property
    def heap(self) -> str:
        """The heap of a node: small ones, if there are several."""
        return self.opensearch_heap or ("1g" if self.opensearch_nodes == 1 else "512m")


def options_from_environment(environ: Mapping[str, str], *, services: Iterable[str] = SERVICES) -> StackOptions:
    """Read the variables a person sets before `make up`; unset ones keep their defaults."""
    return StackOptions(
        home=home_from_environment(environ),
        cache=Path(environ.get("LOCAL_STACK_CACHE") or REPOSITORY / ".cache").absolute(),
        services=frozenset(services),
        opensearch_version=environ.get("OPENSEARCH_VERSION") or VERSIONS[0],
        opensearch_nodes=_node_count(environ.get("OPENSEARCH_NODES") or "1"),
        opensearch_heap=environ.get("OPENSEARCH_HEAP", ""),
        security=_wants_security(environ.get("SECURITY", "")),
        executor=executor_from_environment(environ),
        ports={
            name: _port_number(port_variable(name), environ[port_variable(name)])
            for name in DEFAULT_PORTS
            if environ.get(port_variable(name))
        },
        free_ports=_wants_free_ports(environ.get("PORTS", "")),
    )


def home_from_environment(environ: Mapping[str, str]) -> Path:
    """The folder that holds the state of one stack."""
    return Path(environ.get("LOCAL_STACK_HOME") or REPOSITORY / ".local").absolute()


def executor_from_environment(environ: Mapping[str, str]) -> str:
    """`local` or `celery`."""
    return environ.get("EXECUTOR") or EXECUTORS[0]


def port_variable(name: str) -> str:
    """`ai_services` -> `AI_SERVICES_PORT`."""
    return f"{name.upper()}_PORT"


def choose_ports(options: StackOptions) -> Ports:
    """Fix every port: those asked for, then defaults or what the system has free."""
    chosen = dict(options.ports)
    missing = [name for name in DEFAULT_PORTS if name not in chosen]
    if options.free_ports:
        chosen |= dict(zip(missing, _free_ports(len(missing)), strict=True))
    else:
        chosen |= {name: DEFAULT_PORTS[name] for name in missing}
    _refuse_doubles(chosen)
    return Ports(**chosen)


def refuse_taken(ports: Ports, names: Iterable[str]) -> None:
    """A port that is taken is an error now, not a line in the log of a half-started stack later."""
    for name in sorted(names):
        if not is_free(port := getattr(ports, name)):
            raise StackError(
                f"{name}: port {port} on {LOOPBACK} is taken by another program. "
                f"Set {port_variable(name)} to another port, or PORTS=free to pick free ones."
            )


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # Servers set this too; without it a port in TIME_WAIT looks taken for a minute after `down`.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:  # all stay open until the last one is bound: the system hands out distinct ports
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _refuse_doubles(chosen: Mapping[str, int]) -> None:
    name_of: dict[int, str] = {}
    for name, port in chosen.items():
        if other := name_of.get(port):
            raise StackError(
                f"{port_variable(name)} and {port_variable(other)} both are {port}: give each its own port."
            )
        name_of[port] = name


def _port_number(variable: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:  # noqa: PLR2004  the last port there is
        raise StackError(f"{variable}={text}: not a port. Give a number from 1 to 65535.")
    return int(text)


def _node_count(text: str) -> int:
    if text not in map(str, NODE_COUNTS):
        raise StackError(f"OPENSEARCH_NODES={text}: not assembled here. Use {' or '.join(map(str, NODE_COUNTS))}.")
    return int(text)


def _wants_security(text: str) -> bool:
    if text not in ("", "on", "off"):
        raise StackError(f"SECURITY={text}: unknown. Use SECURITY=on or SECURITY=off.")
    return text == "on"


def _wants_free_ports(text: str) -> bool:
    if text not in ("", "free"):
        raise StackError(f"PORTS={text}: unknown. The only value is PORTS=free.")
    return text == "free"
