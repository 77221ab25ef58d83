"""A node is made of exactly what the lock says, and laid out like the distribution."""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import msgspec
import pytest

from include.local_stack import opensearch, opensearch_artifacts
from include.local_stack.java import Java
from include.local_stack.opensearch_artifacts import Artifact, Lock, Module, pom_of, read_lock, verify
from include.local_stack.opensearch_home import NodeHome, assemble, place_for, remove
from include.local_stack.settings import VERSIONS, StackError


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the three files of a very small node."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("core-1.jar", "geo-1.jar"):
        (folder / name).write_text(name)
    with zipfile.ZipFile(folder / "ml-1.zip", "w") as archive:
        archive.writestr("plugin-descriptor.properties", "name=ml")
        archive.writestr("onnxruntime_gpu-1.jar", "304 MB")
    return folder


@pytest.fixture
def lock(cache: Path) -> Lock:
    """The lock of that node."""
    core, geo, plugin = (_locked(cache, name) for name in ("core-1.jar", "geo-1.jar", "ml-1.zip"))
    module = Module("org.Geo", "", (geo,), ("grant {};",))
    return Lock("9.9.9", 11, None, (core,), (), {"geo": module}, {"opensearch-ml": plugin}, {})


def _locked(cache: Path, name: str) -> Artifact:
    stem, _, kind = name.rpartition(".")
    return Artifact(f"org:{stem.replace('-', ':')}", kind, hashlib.sha256((cache / name).read_bytes()).hexdigest())


@pytest.mark.parametrize("version", VERSIONS)
def test_pom_and_lock_name_the_same_artifacts(version: str) -> None:
    """What mvn fetches is what the lock checks, no file more and none less."""
    lock = read_lock(version)
    wanted = {a.file_name for a in (*lock.artifacts(), *lock.optional_plugins.values())}
    fetched = set()
    for dependency in ET.parse(pom_of(version)).getroot().iter("dependency"):  # noqa: S314  our own file
        parts = [dependency.findtext(tag) for tag in ("artifactId", "version", "classifier")]
        fetched.add("-".join(part for part in parts if part) + f".{dependency.findtext('type')}")
    assert fetched == wanted


def test_the_security_plugin_is_locked_for_2_19() -> None:
    """It is fetched with the rest, though a node has it only on request."""
    assert "opensearch-security" in read_lock("2.19.1").optional_plugins
    assert "opensearch-security" not in read_lock("2.19.1").plugins


def test_a_home_has_the_layout_of_the_distribution(lock: Lock, cache: Path, tmp_path: Path) -> None:
    """Libraries, modules with a descriptor, unpacked plugins without GPU code, and the empty bin/ the node asks for."""
    path = tmp_path / "node"
    assemble(lock, cache=cache, path=path)
    assert (path / "lib" / "core-1.jar").exists()
    assert "classname=org.Geo\n" in (path / "modules/geo/plugin-descriptor.properties").read_text()
    assert (path / "modules/geo/plugin-security.policy").read_text() == "grant {};\n"
    assert [entry.name for entry in (path / "plugins/opensearch-ml").iterdir()] == ["plugin-descriptor.properties"]
    assert list((path / "bin").iterdir()) == []


def test_a_home_is_made_once(lock: Lock, cache: Path, tmp_path: Path) -> None:
    """The same node again keeps its data; another one starts from an empty folder."""
    path = tmp_path / "node"
    assemble(lock, cache=cache, path=path)
    (path / "data" / "index").touch()
    assemble(lock, cache=cache, path=path)
    assert (path / "data" / "index").exists()
    assemble(lock, cache=cache, path=path, left_out=("geo",))
    assert not (path / "data" / "index").exists()
    assert not (path / "modules" / "geo").exists()
    remove(path)
    assert not path.exists()


def test_a_wrong_checksum_deletes_the_file_and_says_so(lock: Lock, cache: Path) -> None:
    """The next run fetches it again; nothing was assembled from it."""
    (cache / "core-1.jar").write_text("something else")
    with pytest.raises(StackError, match=r"core-1\.jar: sha256 is .* the lock says .* the file is deleted"):
        verify(lock.artifacts(), cache)
    assert not (cache / "core-1.jar").exists()


def test_maven_runs_only_when_a_file_is_missing(
    lock: Lock, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A complete cache needs no mvn; with a file missing and no mvn, the error says how to get it."""
    (tmp_path / "lock-9.9.9.json").write_bytes(msgspec.json.encode(lock))
    monkeypatch.setattr(opensearch_artifacts, "FOLDER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert opensearch_artifacts.fetch("9.9.9", cache) == lock
    (cache / "geo-1.jar").unlink()
    with pytest.raises(StackError, match=r"mvn is missing.*apt-get install .*maven"):
        opensearch_artifacts.fetch("9.9.9", cache)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the node as another user")
def test_a_home_that_the_node_cannot_reach_lies_elsewhere(tmp_path: Path) -> None:
    """Below a private folder the node moves to the temporary folder, always to the same name."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    place = place_for(private / "home")
    assert not place.is_relative_to(private)
    assert place == place_for(private / "home")
    assert place != place_for(private / "other")


@pytest.mark.parametrize(
    ("version", "major", "present", "absent"),
    [
        ("2.19.1", 11, "SPI,COMPAT", "security.manager"),
        ("2.19.1", 17, "-Djava.security.manager=allow", "javaagent"),
        ("3.6.0", 25, "opensearch-agent.jar", "security.manager"),
        ("3.6.0", 25, "--enable-native-access", "COMPAT"),
    ],
)
def test_flags_follow_version_and_java(version: str, major: int, present: str, absent: str) -> None:
    """2.x has a security manager, 3.x an agent; a flag that a Java does not know would end it."""
    java = Java(Path("java"), major, has_vector_module=True)
    node = opensearch.Node(NodeHome(Path("node"), version, ()), java)
    flags = " ".join(opensearch.java_flags(node, heap="1g"))
    assert present in flags
    assert absent not in flags
    assert ("incubator.vector" in flags) == (major >= 20)
