"""A real OpenSearch node on loopback. It is ready only when the index guard is in place.

The k-NN plugin's archive carries no native faiss. An index of that engine (or of none: faiss is the default) would
end the node at its first refresh. The guard is a legacy index template that turns graph building off for every
index: search stays exact, in Java. A legacy template, because those merge with each other: a composable one would
hide the templates of the user. What it cannot cover: an index that matches a composable template of the user (put
`GUARD_SETTINGS` into that template), and quantised fields (`mode: on_disk`, `compression_level` of 4x and more).
Engine `lucene` is not touched, `nmslib` is harmless on 2.19 and refused by 3.x itself.
"""

from __future__ import annotations

import http
import os
import pwd
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from include.local_stack import opensearch_security
from include.local_stack.egress_certificates import install_in_node
from include.local_stack.egress_certificates import jvm_flags as egress_jvm_flags
from include.local_stack.java import Java, choose_java
from include.local_stack.node_api import NodeAPI
from include.local_stack.opensearch_artifacts import Lock, fetch, read_lock
from include.local_stack.opensearch_home import (
    NODE_USER,
    NodeHome,
    assemble,
    hand_over,
    node_user_can_reach,
    place_for,
)
from include.local_stack.processes import Command
from include.local_stack.settings import LOOPBACK, Ports, StackOptions, node_names
from include.local_stack.state import Credentials

# Its name stands in the warning that the node sends to whoever puts a composable template over it.
GUARD_NAME = "local_stack_has_no_native_faiss"
GUARD_SETTINGS = {"index.knn.advanced.approximate_threshold": -1}
# Language analyzers load locale data that a trimmed runtime does not have; index creation fails with them.
LEFT_OUT_ON_TRIMMED_JAVA = ("analysis-common",)
START_WAIT_S = 180.0

BASE_SETTINGS = """cluster.name: local-stack
node.name: {name}
path.data: {home}/data
path.logs: {home}/logs
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
{discovery}
action.auto_create_index: true
cluster.routing.allocation.disk.threshold_enabled: false
"""
SEVERAL_NODES = """discovery.seed_hosts: [{seeds}]
cluster.initial_cluster_manager_nodes: [{names}]"""
ML_SETTINGS = """plugins.ml_commons.only_run_on_ml_node: false
plugins.ml_commons.native_memory_threshold: 100
plugins.ml_commons.jvm_heap_memory_threshold: 100
plugins.ml_commons.disk_free_space_threshold: -1
plugins.ml_commons.offline_batch_inference_enabled: true
plugins.ml_commons.offline_batch_ingestion_enabled: true
plugins.ml_commons.remote_inference.enabled: true
plugins.ml_commons.connector.private_ip_enabled: true
plugins.ml_commons.model_access_control_enabled: false
plugins.ml_commons.trusted_connector_endpoints_regex:
  - "^https?://(localhost|127\\\\.0\\\\.0\\\\.1)(:[0-9]+)?(/.*)?$"
  - "^https://(runtime|api)\\\\.sagemaker\\\\..*[a-z0-9-]\\\\.amazonaws\\\\.com/.*$"
  - "^https://bedrock(-runtime|-agent-runtime)?\\\\..*[a-z0-9-]\\\\.amazonaws\\\\.com/.*$"
  - "^https://api\\\\.(openai\\\\.com|cohere\\\\.(ai|com))/.*$"
"""
# config/jvm.options of the distribution and the launcher's own flags.
JVM_FLAGS = (
    "-XX:+UseG1GC",
    "-XX:G1ReservePercent=25",
    "-XX:InitiatingHeapOccupancyPercent=30",
    "-XX:-OmitStackTraceInFastThrow",
    "-Xss1m",
    "-Dopensearch.networkaddress.cache.ttl=60",
    "-Dopensearch.networkaddress.cache.negative.ttl=10",
    "-Djava.awt.headless=true",
    "-Dfile.encoding=UTF-8",
    "-Djna.nosys=true",
    "-Dio.netty.noUnsafe=true",
    "-Dio.netty.noKeySetOptimization=true",
    "-Dio.netty.recycler.maxCapacityPerThread=0",
    "-Dio.netty.allocator.numDirectArenas=0",
    "-Dlog4j.shutdownHookEnabled=false",
    "-Dlog4j2.disable.jmx=true",
    "-Dopensearch.distribution.type=tar",
    "-Dopensearch.bundled_jdk=false",
)


class Node(msgspec.Struct, frozen=True):
    """An assembled node and the Java that runs it; `name` is that of its process."""

    home: NodeHome
    java: Java
    name: str = "opensearch"


def prepare(options: StackOptions, keys: Credentials, *, certificates: Path, name: str) -> Node:
    """Fetch, verify and assemble; does nothing that was done before."""
    lock = fetch(options.opensearch_version, options.cache / "jars", _optional_plugins(options))
    java = choose_java(lock.java_min, lock.java_max, cache=options.cache, usable=node_user_can_reach)
    left_out = LEFT_OUT_ON_TRIMMED_JAVA if java.is_trimmed else ()
    path = place_for(options.home, name)
    home = assemble(lock, cache=options.cache / "jars", path=path, left_out=left_out)
    install_in_node(certificates, path / "config")
    java = _within_reach(java, path)
    if options.security:
        opensearch_security.install(
            path,
            java.executable,
            certificates=opensearch_security.certificates_of(options.home),
            admin_password=keys.opensearch_admin_password,
        )
    return Node(home, java, name)


def lock_of(options: StackOptions) -> Lock:
    """Everything the node of these options is made of."""
    return read_lock(options.opensearch_version, _optional_plugins(options))


def _optional_plugins(options: StackOptions) -> tuple[str, ...]:
    return (opensearch_security.PLUGIN,) if options.security else ()


def command(node: Node, options: StackOptions, ports: Ports, keys: Credentials, *, env: dict[str, str]) -> Command:
    """How to start the node; its settings file is written here, its folders pass to the account that runs it."""
    path, (http_port, transport) = node.home.path, ports.of_node(node.name)
    discovery = _discovery(options.opensearch_nodes, ports)
    settings = BASE_SETTINGS.format(name=node.name, home=path, http=http_port, transport=transport, discovery=discovery)
    settings += ML_SETTINGS + (opensearch_security.SETTINGS if options.security else "")
    (path / "config" / "opensearch.yml").write_text(settings)
    account = pwd.getpwnam(NODE_USER) if os.geteuid() == 0 else None
    if account:
        hand_over(path)
    return Command(
        name=node.name,
        argv=(
            str(node.java.executable),
            *java_flags(node, heap=options.heap),
            *egress_jvm_flags(path / "config", ports.egress),
            *("-cp", f"{path}/lib/*", "org.opensearch.bootstrap.OpenSearch"),
        ),
        env=env | {"HOME": str(path / "tmp"), "LANG": "C.UTF-8", "AWS_ENDPOINT_URL_S3": ports.url("s3")},
        cwd=path,
        log=options.home / "logs" / f"{node.name}.log",
        is_healthy=_ready_check(options, http_port, keys),
        wait_s=START_WAIT_S,
        uid=account.pw_uid if account else None,
        gid=account.pw_gid if account else None,
    )


def java_flags(node: Node, *, heap: str) -> list[str]:
    """The flags for this version on this Java; the javaagent of 3.x replaces the security manager of 2.x."""
    path, major = node.home.path, node.java.major
    flags = [f"-Xms{heap}", f"-Xmx{heap}", *JVM_FLAGS]
    flags.append(f"-Djava.locale.providers=SPI,{'COMPAT' if major < 23 else 'CLDR'}")  # noqa: PLR2004  COMPAT ended
    if major >= 20 and node.java.has_vector_module:  # noqa: PLR2004  what Lucene can use
        flags.append("--add-modules=jdk.incubator.vector")
    if node.home.version.startswith("2."):
        if major >= 12:  # noqa: PLR2004  before, it was allowed without asking
            flags.append("-Djava.security.manager=allow")
    else:
        flags.append(f"-javaagent:{path}/agent/opensearch-agent.jar")
        flags.append("-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1")
        if major >= 22:  # noqa: PLR2004  since then, native access without the flag warns
            flags.append("--enable-native-access=ALL-UNNAMED")
    return [
        *flags,
        f"-Djava.io.tmpdir={path / 'tmp'}",
        f"-Djna.tmpdir={path / 'tmp'}",
        f"-XX:ErrorFile={path}/logs/hs_err_pid%p.log",
        f"-Dopensearch.path.home={path}",
        f"-Dopensearch.path.conf={path}/config",
    ]


def _discovery(nodes: int, ports: Ports) -> str:
    if nodes == 1:
        return "discovery.type: single-node"
    names = node_names(nodes)
    seeds = ", ".join(f'"{LOOPBACK}:{ports.of_node(name)[1]}"' for name in names)
    return SEVERAL_NODES.format(seeds=seeds, names=", ".join(names))


def ready_check(api: NodeAPI, wanted: Sequence[tuple[str, object]], *, nodes: int = 1) -> Callable[[], bool]:
    """True once the cluster has all nodes, is yellow or green and holds what it has to: a path and a body each."""

    def is_ready() -> bool:
        condition = f"wait_for_status=yellow&wait_for_nodes={nodes}"
        status, body = api.call("GET", f"/_cluster/health?{condition}&timeout=2s")
        if status != http.HTTPStatus.OK or body.get("status") not in ("yellow", "green"):
            return False
        made = (http.HTTPStatus.OK, http.HTTPStatus.CREATED)
        return all(api.call("PUT", path, content)[0] in made for path, content in wanted)

    return is_ready


def _ready_check(options: StackOptions, port: int, keys: Credentials) -> Callable[[], bool]:
    guard = {"index_patterns": ["*"], "order": -1, "settings": GUARD_SETTINGS}
    wanted: list[tuple[str, object]] = [(f"/_template/{GUARD_NAME}", guard)]
    if not options.security:
        return ready_check(NodeAPI(port), wanted, nodes=options.opensearch_nodes)
    admin = NodeAPI(
        port,
        opensearch_security.ADMIN,
        keys.opensearch_admin_password,
        opensearch_security.authority_file(options.home),
    )
    return ready_check(admin, [*wanted, *opensearch_security.worker_account(keys)])


def _within_reach(java: Java, path: Path) -> Java:
    """Copy the runtime into the node's home when the node's account cannot reach it where it lies."""
    if node_user_can_reach(java.executable):
        return java
    runtime = path / "jdk"
    if not runtime.exists():
        shutil.copytree(java.executable.parents[1], runtime)
    return msgspec.structs.replace(java, executable=runtime / "bin" / "java")
