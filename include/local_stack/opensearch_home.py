"""The folder of an OpenSearch node, laid out like the distribution. It appears whole (its marker is written last)."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path

import msgspec

from include.local_stack.opensearch_artifacts import Artifact, Lock, verify
from include.local_stack.settings import StackError

NODE_USER = "nobody"
WRITABLE_FOLDERS = ("config", "data", "logs", "tmp")
# 304 MB of GPU code for models that run inside the node; remote models and batch jobs do not use it.
LEFT_OUT_OF_PLUGINS = {"opensearch-ml": ("onnxruntime_gpu-",)}
LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class NodeHome(msgspec.Struct, frozen=True):
    """An assembled node."""

    path: Path
    version: str
    left_out: tuple[str, ...]


def servers_folder(stack_home: Path) -> Path:
    """Where the servers have their folders that run as another account: in the stack's home, if that can get there."""
    if os.geteuid() != 0 or node_user_can_reach(stack_home / "opensearch"):
        return stack_home
    digest = hashlib.sha256(str(stack_home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"local-stack-{digest}"


def place_for(stack_home: Path, name: str = "opensearch") -> Path:
    """Where a node has its folder."""
    return servers_folder(stack_home) / name


def node_user_can_reach(path: Path) -> bool:
    """Whether every folder above `path` that exists lets the node's account pass."""
    if os.geteuid() != 0:
        return True
    account = pwd.getpwnam(NODE_USER)
    return all(_lets_pass(folder.stat(), account) for folder in path.parents if folder.exists())


def _lets_pass(folder: os.stat_result, account: pwd.struct_passwd) -> bool:
    if folder.st_uid == account.pw_uid:
        return bool(folder.st_mode & stat.S_IXUSR)
    if folder.st_gid == account.pw_gid:
        return bool(folder.st_mode & stat.S_IXGRP)
    return bool(folder.st_mode & stat.S_IXOTH)


def assemble(lock: Lock, *, cache: Path, path: Path, left_out: tuple[str, ...] = ()) -> NodeHome:
    """Lay out the node from the cache; a folder that already holds the same node is kept."""
    home = NodeHome(path, lock.opensearch, left_out)
    marker, content = path / "assembled.json", msgspec.json.encode([lock, left_out])
    if marker.exists() and marker.read_bytes() == content:
        return home
    own_parent(path)
    shutil.rmtree(path, ignore_errors=True)
    verify(lock.artifacts(), cache)
    # The node opens bin/ at start, though nothing lies in it.
    for folder in ("bin", "lib", "modules", "plugins", *WRITABLE_FOLDERS):
        (path / folder).mkdir(parents=True, mode=0o755)
    _link_all(lock.lib, cache, path / "lib")
    _lay_out_agent(lock, cache, path)
    for name in sorted(lock.modules.keys() - set(left_out)):
        _lay_out_module(lock, name, cache, path / "modules" / name)
    for name, artifact in lock.plugins.items():
        _unpack(cache / artifact.file_name, path / "plugins" / name, skip=LEFT_OUT_OF_PLUGINS.get(name, ()))
    (path / "config" / "log4j2.properties").write_text(LOG4J)
    marker.write_bytes(content)
    return home


def hand_over(path: Path) -> None:
    """Give what the node writes to the account that runs it; OpenSearch refuses to run as root."""
    account = pwd.getpwnam(NODE_USER)
    for folder in WRITABLE_FOLDERS:
        for entry in (path / folder, *(path / folder).rglob("*")):
            os.chown(entry, account.pw_uid, account.pw_gid)


def remove(path: Path) -> None:
    """Delete a node with its data; the cache keeps what it was made from."""
    shutil.rmtree(path, ignore_errors=True)
    if path.parent.parent == Path(tempfile.gettempdir()) and re.match("local-stack-", path.parent.name):
        shutil.rmtree(path.parent, ignore_errors=True)


def own_parent(path: Path) -> None:
    """Make the folder above; below the system's temporary folder anybody can make one: use none that is not ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if (owner := path.parent.stat().st_uid) != os.geteuid():
        raise StackError(f"{path.parent}: belongs to user id {owner}. Delete it, or set LOCAL_STACK_HOME elsewhere.")


def _link_all(artifacts: tuple[Artifact, ...], cache: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for artifact in artifacts:
        _link(cache / artifact.file_name, folder / artifact.file_name)


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
        target.chmod(0o644)
        return
    if source.stat().st_mode & 0o444 != 0o444:  # noqa: PLR2004  readable by all
        source.chmod(0o644)


def _lay_out_agent(lock: Lock, cache: Path, path: Path) -> None:
    if not lock.agent:
        return
    _link_all(lock.agent, cache, path / "agent")
    for artifact in lock.agent:
        if artifact.gav.startswith("org.opensearch:opensearch-agent:"):
            _link(cache / artifact.file_name, path / "agent" / "opensearch-agent.jar")


def _lay_out_module(lock: Lock, name: str, cache: Path, folder: Path) -> None:
    module = lock.modules[name]
    _link_all(module.jars, cache, folder)
    descriptor = {
        "name": name,
        "description": name,
        "version": lock.opensearch,
        "opensearch.version": lock.opensearch,
        "java.version": str(lock.java_min),
        "classname": module.classname,
        "custom.foldername": "",
        "extended.plugins": module.extended_plugins,
        "has.native.controller": "false",
    }
    text = "".join(f"{key}={value}\n" for key, value in descriptor.items())
    (folder / "plugin-descriptor.properties").write_text(text)
    if module.policy:
        (folder / "plugin-security.policy").write_text("\n".join(module.policy) + "\n")


def _unpack(archive: Path, folder: Path, *, skip: tuple[str, ...]) -> None:
    folder.mkdir()
    with zipfile.ZipFile(archive) as content:
        for name in content.namelist():
            if not name.endswith("/") and not name.startswith(skip or ("\0",)):
                content.extract(name, folder)
